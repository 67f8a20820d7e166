//! Who asks and whether they may: authentication and authorization.
//!
//! Knows credentials, users, roles and nodes; nothing of paths and bodies of requests, which are the API server's.

#![allow(clippy::result_large_err, reason = "a refusal is a Status as clients see it")]

pub mod authentication;
pub mod authorization;
mod user;

pub use user::{ANONYMOUS, AUTHENTICATED, MASTERS, UNAUTHENTICATED, User};
