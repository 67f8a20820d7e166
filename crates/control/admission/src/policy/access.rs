//! What `authorizer` answers: decisions are looked up outside of evaluations, which are then done again.

use async_trait::async_trait;
use parking_lot::Mutex;
use pintle_cel::library::{Authorize, Decision, Query};
use pintle_registry::UserInfo;
use std::collections::HashMap;
use std::sync::Arc;

/// Decides what a user, or a service account (see [`Query::who`]), may do.
#[async_trait]
pub trait Access: Send + Sync {
    async fn decide(&self, user: &UserInfo, query: &Query) -> Decision;
}

/// The decisions of one request. Each is asked for once.
#[derive(Default)]
pub(crate) struct Decisions {
    known: Mutex<HashMap<Query, Decision>>,
    pending: Mutex<Vec<Query>>,
}

impl Authorize for Decisions {
    fn authorize(&self, query: &Query) -> Option<Decision> {
        let known = self.known.lock().get(query).cloned();
        if known.is_none() {
            self.pending.lock().push(query.clone());
        }
        known
    }
}

impl Decisions {
    /// Finds out what evaluations wanted to know. Whether there was anything: then they are to be done again.
    async fn settle(&self, access: &dyn Access, user: &UserInfo) -> bool {
        let pending = std::mem::take(&mut *self.pending.lock());
        for query in &pending {
            let decision = access.decide(user, query).await;
            self.known.lock().insert(query.clone(), decision);
        }
        !pending.is_empty()
    }
}

/// Evaluates until all decisions that it asks for are known. Every round learns of at least one of them, and asking is
/// so expensive that an evaluation's budget ends it soon.
pub(crate) async fn evaluated<T>(
    decisions: &Arc<Decisions>,
    access: &dyn Access,
    user: &UserInfo,
    mut evaluate: impl FnMut() -> T,
) -> T {
    loop {
        let outcome = evaluate();
        if !decisions.settle(access, user).await {
            return outcome;
        }
    }
}
