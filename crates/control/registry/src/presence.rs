//! Which servers there are: each keeps a key under a lease, which goes when the server goes.
//!
//! The keys are those of upstream's servers, which may work on the same store.

use crate::read::store_status;
use crate::registry::Registry;
use bytes::Bytes;
use futures::StreamExt;
use pintle_store::{KeyRange, LeaseId, Op, RangeRequest, Store, StoreError, Txn, WatchStream};
use pintle_types::Status;
use serde_json::json;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

const PREFIX: &str = "/registry/masterleases/";

/// This server among those that there are, until its lease ends.
pub struct Presence {
    store: Arc<dyn Store>,
    address: IpAddr,
    ttl_seconds: u64,
    lease: LeaseId,
}

/// Tells when servers come and go.
pub struct PresenceWatch(WatchStream);

impl PresenceWatch {
    /// Waits for the next change. An error is the end of the watch.
    pub async fn changed(&mut self) -> Result<(), Status> {
        loop {
            match self.0.next().await {
                Some(Ok(batch)) if batch.events.is_empty() => {}
                Some(Ok(_)) => return Ok(()),
                Some(Err(error)) => return Err(store_status(error)),
                None => return Err(store_status(StoreError::Closed)),
            }
        }
    }
}

impl Registry {
    /// The addresses of the servers that there are, in order, and a watch of what changes after that.
    pub async fn servers(&self) -> Result<(BTreeSet<IpAddr>, PresenceWatch), Status> {
        let request = RangeRequest { range: KeyRange::prefix(PREFIX), at: None, limit: 0 };
        let found = self.store.range(request).await.map_err(store_status)?;
        let address = |key: &[u8]| std::str::from_utf8(key).ok()?.strip_prefix(PREFIX)?.parse().ok();
        let addresses = found.kvs.iter().filter_map(|kv| address(&kv.key)).collect();
        let watch = self.store.watch(KeyRange::prefix(PREFIX), found.revision + 1).await.map_err(store_status)?;
        Ok((addresses, PresenceWatch(watch)))
    }

    /// Counts the server at `address` among those that there are, as long as it renews that within `ttl_seconds`.
    pub async fn announce(&self, address: IpAddr, ttl_seconds: u64) -> Result<Presence, Status> {
        let mut presence = Presence { store: self.store.clone(), address, ttl_seconds, lease: 0 };
        presence.write().await.map_err(store_status)?;
        Ok(presence)
    }
}

impl Presence {
    /// Goes on to be there; comes back if it was gone.
    pub async fn renew(&mut self) -> Result<(), Status> {
        match self.store.renew_lease(self.lease).await {
            Err(StoreError::NoSuchLease(_)) => self.write().await.map_err(store_status),
            other => other.map_err(store_status),
        }
    }

    /// Writes the key anew: somebody removed it.
    pub async fn restore(&mut self) -> Result<(), Status> {
        self.put().await.map_err(store_status)
    }

    /// Is there no more.
    pub async fn withdraw(self) -> Result<(), Status> {
        match self.store.revoke_lease(self.lease).await {
            Err(StoreError::NoSuchLease(_)) => Ok(()),
            other => other.map_err(store_status),
        }
    }

    async fn write(&mut self) -> Result<(), StoreError> {
        self.lease = self.store.grant_lease(self.ttl_seconds).await?;
        self.put().await
    }

    async fn put(&self) -> Result<(), StoreError> {
        let address = self.address.to_string();
        // Upstream's servers read the address from the value.
        let value = json!({
            "kind": "Endpoints", "apiVersion": "v1", "metadata": {"generation": 1},
            "subsets": [{"addresses": [{"ip": address}]}],
        });
        let key = Bytes::from(format!("{PREFIX}{address}"));
        let put = Op::Put { key, value: value.to_string().into(), lease: self.lease };
        self.store.txn(Txn { then: vec![put], ..Txn::default() }).await.map(drop)
    }
}
