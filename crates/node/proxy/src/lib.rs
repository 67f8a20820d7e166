//! Programs the kernel to carry service addresses to their endpoints.
