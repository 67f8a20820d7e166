//! The loops that drive the cluster to what its objects ask for.
