//! Keeps local copies of API objects by watching, and runs reconcilers on what changes.
//!
//! One shared [`Informer`] per kind and selector in a process ([`Informers`]); a [`Queue`] of keys that merges what
//! happens to a key while it waits; [`run_reconciler`], which works the queue off; a [`Recorder`] of events. An
//! informer never lists again while a watch can be resumed, and cached objects carry no managed fields.

mod cache;
mod election;
mod informer;
mod queue;
mod reconciler;
mod recorder;
mod reflector;
mod slim;

pub use cache::Change;
pub use election::{Election, ElectionTimes};
pub use informer::{Informer, Informers, Selector};
pub use queue::{Queue, QueueStats};
pub use reconciler::{Outcome, run_reconciler};
pub use recorder::{EventType, Recorder, reference};
pub use reflector::{Sink, Source, reflect};

#[cfg(test)]
mod tests;
