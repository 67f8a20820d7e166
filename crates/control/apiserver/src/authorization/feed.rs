//! Feeds the role index from the registry.
