//! The schema of every kind, and all that is derived from it: field checks, patches, apply, OpenAPI.
