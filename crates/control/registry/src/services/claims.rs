//! What is written beside a Service about what it holds, and deleted with it in the same step: an IPAddress for each of
//! its addresses, which also lets servers that share a store agree on who has it, and where they do a key for each port.

use super::{Allocation, Holdings, Services, holdings, is_service};
use crate::cache::Snapshot;
use bytes::Bytes;
use pintle_kinds::ResourceDef;
use pintle_store::{Compare, KeyRange, Op, RangeRequest, Store, StoreError, Txn};
use serde_json::{Value, json};
use std::collections::HashSet;

/// Below what objects have: no resource's keys begin so.
const ROOT: &str = "/registry/pintle/claims/";

/// Where IPAddresses are: their names are the addresses.
const ADDRESSES: &str = "/registry/ipaddresses/";

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

    /// What is done beside writing the Service, whose key the claims name. `now` is an RFC 3339 time.
    pub(crate) fn ops<'a>(&'a self, owner: &'a Bytes, now: &'a str) -> impl Iterator<Item = Op> + 'a {
        let put = |key: &Bytes| Op::Put { key: key.clone(), value: value(key, owner, now), lease: 0 };
        self.taken.iter().map(put).chain(self.dropped.iter().map(|key| Op::Delete(KeyRange::key(key.clone()))))
    }
}

/// What a claim says: the IPAddress, or for ports who has it.
fn value(key: &Bytes, owner: &Bytes, now: &str) -> Bytes {
    let address = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(ADDRESSES));
    match (address, std::str::from_utf8(owner)) {
        (Some(address), Ok(owner)) => address_object(address, owner, now).to_string().into(),
        _ => owner.clone(),
    }
}

/// The IPAddress of a Service whose key is `owner`, as upstream's allocator makes it.
fn address_object(address: &str, owner: &str, now: &str) -> Value {
    let mut parts = owner.rsplit('/');
    let (name, namespace) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let family = if address.contains(':') { "IPv6" } else { "IPv4" };
    let fields = json!({
        "f:metadata": {"f:labels": {
            ".": {}, "f:ipaddress.kubernetes.io/ip-family": {}, "f:ipaddress.kubernetes.io/managed-by": {},
        }},
        "f:spec": {"f:parentRef": {".": {}, "f:name": {}, "f:namespace": {}, "f:resource": {}}},
    });
    json!({
        "kind": "IPAddress",
        "apiVersion": "networking.k8s.io/v1",
        "metadata": {
            "name": address,
            "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": now,
            "labels": {
                "ipaddress.kubernetes.io/ip-family": family,
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
            "managedFields": [{
                "manager": "kube-apiserver", "operation": "Update", "apiVersion": "networking.k8s.io/v1", "time": now,
                "fieldsType": "FieldsV1", "fieldsV1": fields,
            }],
        },
        "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": name}},
    })
}

/// The claims of what is held; ports are only claimed where others share the store.
fn keys(held: &Holdings, shared: bool) -> Vec<Bytes> {
    let addresses = held.addresses.iter().map(|address| format!("{ADDRESSES}{address}"));
    let ports = held.ports.iter().filter(|_| shared).map(|port| format!("{ROOT}ports/{port}"));
    addresses.chain(ports).map(Bytes::from).collect()
}

impl Allocation {
    pub(crate) fn claims(&self, shared: bool) -> Claims {
        Claims { taken: keys(&self.taken, shared), dropped: keys(&self.dropped, shared) }
    }
}

impl Services {
    /// What the deletion of an object frees.
    pub(crate) fn freed(&self, def: &ResourceDef, object: &Value, shared: bool) -> Claims {
        let dropped = if is_service(def) { keys(&holdings(object), shared) } else { Vec::new() };
        Claims { taken: Vec::new(), dropped }
    }

    /// Claims what the Services that are there hold: others may have made them without.
    pub(crate) async fn claim_present(
        &self,
        store: &dyn Store,
        present: &Snapshot,
        now: &str,
    ) -> Result<(), StoreError> {
        let shared = store.is_shared();
        let mut claimed: HashSet<Bytes> = HashSet::new();
        for root in [ADDRESSES, ROOT].into_iter().take(if shared { 2 } else { 1 }) {
            let range = KeyRange::prefix(root);
            let found = store.range(RangeRequest { range, at: None, limit: 0 }).await?;
            claimed.extend(found.kvs.into_iter().map(|kv| kv.key));
        }
        for entry in present.iter() {
            let owner = Bytes::copy_from_slice(entry.key());
            let missing = keys(&holdings(&entry.to_value()), shared).into_iter().filter(|key| !claimed.contains(key));
            for key in missing {
                let claims = Claims { taken: vec![key], dropped: Vec::new() };
                let there = Compare::ModRevision(owner.clone(), entry.revision());
                let compare = claims.conditions().chain([there]).collect();
                let then = claims.ops(&owner, now).collect();
                // Whoever changed it meanwhile has claimed it.
                store.txn(Txn { compare, then, otherwise: Vec::new() }).await?;
            }
        }
        Ok(())
    }
}
