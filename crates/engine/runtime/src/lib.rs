//! Owns the life of sandboxes and containers, and serves them by the words of CRI.
