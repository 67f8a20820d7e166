//! Policies over a registry in memory.
