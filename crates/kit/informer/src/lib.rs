//! Keeps local copies of API objects by watching, and runs reconcilers on what changes.
