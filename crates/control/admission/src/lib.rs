//! What is asked before a write is stored: webhooks, policies in CEL, quotas, limit ranges.

// A status is the answer to a request: errors are as big as they are rare.
#![allow(clippy::result_large_err)]

pub mod limits;
mod matching;
pub mod pod_security;
pub mod policy;
pub mod quota;
mod reinvocation;
pub mod webhook;

pub use reinvocation::Reinvocation;
