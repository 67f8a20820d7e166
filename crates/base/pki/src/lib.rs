//! Makes and reads certificate authorities, certificates and keys, and the TLS settings built on them.
