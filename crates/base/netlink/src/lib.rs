//! Speaks rtnetlink and nf_tables to the kernel: links, addresses, routes, namespaces, rules.
