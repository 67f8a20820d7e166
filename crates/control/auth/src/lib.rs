//! Who asks and whether they may: authentication and authorization.
//!
//! Knows credentials, users, roles and nodes; nothing of paths and bodies of requests, which are the API server's.

#![allow(clippy::result_large_err, reason = "a refusal is a Status as clients see it")]

pub mod authentication;
pub mod authorization;
mod cache;
mod cel;
pub mod configuration;
mod outbound;
pub mod settings;
mod user;

pub use settings::{Auth, AuthSettings, Basics};
pub use user::{ANONYMOUS, AUTHENTICATED, MASTERS, UNAUTHENTICATED, User};
