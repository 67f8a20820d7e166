//! Starts real clusters in namespaces of their own and drives them with real clients.
