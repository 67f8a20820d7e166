//! Answers the cluster's names and forwards the rest.
