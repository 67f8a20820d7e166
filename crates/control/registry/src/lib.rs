//! The generic verbs over any kind, and the cache that answers reads and watches.
