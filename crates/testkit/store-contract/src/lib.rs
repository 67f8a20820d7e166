//! The tests that every backend of the store passes.
