//! Who did what: the audit policy, its events, and where they are written.
//!
//! [`Auditor::begin`] asks the policy about a request; what is to be audited becomes a [`Record`], which is told how
//! the request goes on and hands an event of each stage to the sinks. Sinks never hold a request up, except the log in
//! blocking mode: they queue a bounded number of events and count what they lose. Without a policy there is no
//! auditor, and nothing to pay.
//!
//! Source: `audit.k8s.io/v1`, and apiserver's `pkg/audit`.

mod event;
mod log;
mod policy;
mod record;
mod webhook;

pub use event::{Event, Level, ObjectRef, Stage, User};
pub use log::{LogError, LogOptions, LogSink};
pub use policy::{Attributes, Policy, PolicyError, Resource};
pub use record::{Auditor, Record, Sink};
pub use webhook::{WebhookOptions, WebhookSink};

#[cfg(test)]
mod tests;
