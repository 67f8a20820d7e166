//! Settings of a node that is not there.

use crate::host::{RuntimeFacts, Settings};
use std::path::Path;

/// A node `n1` at 192.0.2.1 with 4 GiB and 2 processors, whose files are below `root`.
pub(crate) fn settings(root: &Path) -> Settings {
    Settings {
        node_name: "n1".into(),
        node_ips: vec!["192.0.2.1".into()],
        runtime: RuntimeFacts { name: "fake".into(), recursive_read_only: true },
        root_dir: root.join("kubelet"),
        log_dir: root.join("logs"),
        cluster_dns: vec![std::net::Ipv4Addr::new(10, 43, 0, 10).into()],
        cluster_domain: "cluster.local".into(),
        resolv_conf: root.join("resolv.conf"),
        machine_memory: 4 << 30,
        machine_milli_cpu: 2000,
        huge_pages: vec![],
        allocatable_memory: 4 << 30,
        allocatable_milli_cpu: 2000,
        max_restart_period: crate::MaxRestartPeriod::default(),
    }
}
