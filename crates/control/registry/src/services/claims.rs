//! How servers that share a store agree on who has an address or a port: a key for each, written and deleted in the
//! same step as the Service that holds it. A store of our own alone needs none.

use super::{Allocation, Holdings, Services, holdings, is_service};
use crate::cache::Snapshot;
use bytes::Bytes;
use pintle_kinds::ResourceDef;
use pintle_store::{Compare, KeyRange, Op, RangeRequest, Store, StoreError, Txn};
use serde_json::Value;
use std::collections::HashSet;

/// Below what objects have: no resource's keys begin so.
const ROOT: &str = "/registry/pintle/claims/";

/// What a write changes about claims.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    pub taken: Vec<Bytes>,
    pub dropped: Vec<Bytes>,
}

impl Claims {
    /// The conditions under which the claims are free.
    pub(crate) fn conditions(&self) -> impl Iterator<Item = Compare> + '_ {
        self.taken.iter().map(|key| Compare::CreateRevision(key.clone(), 0))
    }

    /// What is done beside writing the Service, whose key the claims name.
    pub(crate) fn ops<'a>(&'a self, owner: &'a Bytes) -> impl Iterator<Item = Op> + 'a {
        let put = |key: &Bytes| Op::Put { key: key.clone(), value: owner.clone(), lease: 0 };
        self.taken.iter().map(put).chain(self.dropped.iter().map(|key| Op::Delete(KeyRange::key(key.clone()))))
    }
}

fn keys(held: &Holdings) -> Vec<Bytes> {
    let addresses = held.addresses.iter().map(|address| format!("{ROOT}addresses/{address}"));
    let ports = held.ports.iter().map(|port| format!("{ROOT}ports/{port}"));
    addresses.chain(ports).map(Bytes::from).collect()
}

impl Allocation {
    pub(crate) fn claims(&self) -> Claims {
        Claims { taken: keys(&self.taken), dropped: keys(&self.dropped) }
    }
}

impl Services {
    /// What the deletion of an object frees.
    pub(crate) fn freed(&self, def: &ResourceDef, object: &Value) -> Claims {
        let dropped = if is_service(def) { keys(&holdings(object)) } else { Vec::new() };
        Claims { taken: Vec::new(), dropped }
    }

    /// Claims what the Services that are there hold: others may have made them without.
    pub(crate) async fn claim_present(&self, store: &dyn Store, present: &Snapshot) -> Result<(), StoreError> {
        let range = KeyRange::prefix(ROOT);
        let claimed = store.range(RangeRequest { range, at: None, limit: 0 }).await?;
        let claimed: HashSet<Bytes> = claimed.kvs.into_iter().map(|kv| kv.key).collect();
        for entry in present.iter() {
            let owner = Bytes::copy_from_slice(entry.key());
            let missing = keys(&holdings(&entry.to_value())).into_iter().filter(|key| !claimed.contains(key));
            for key in missing {
                let claims = Claims { taken: vec![key], dropped: Vec::new() };
                let there = Compare::ModRevision(owner.clone(), entry.revision());
                let compare = claims.conditions().chain([there]).collect();
                let then = claims.ops(&owner).collect();
                // Whoever changed it meanwhile has claimed it.
                store.txn(Txn { compare, then, otherwise: Vec::new() }).await?;
            }
        }
        Ok(())
    }
}
