//! Runs the pods that are bound to its node and reports on them.
