//! Leases: keys go with them.

use super::*;
use pintle_store::LeaseId;

pub(super) async fn run<F, Made>(make: &F)
where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Store>>,
{
    a_revoked_lease_takes_its_keys(&*make().await).await;
    a_key_leaves_its_lease(&*make().await).await;
    unknown_leases_are_refused(&*make().await).await;
    a_lease_ends_by_itself(&*make().await).await;
}

async fn put_leased(store: &dyn Store, key: &str, lease: LeaseId) -> Result<Revision, StoreError> {
    let put = Op::Put { key: Bytes::from(key.to_owned()), value: Bytes::from_static(b"x"), lease };
    Ok(store.txn(Txn { then: vec![put], ..Txn::default() }).await?.revision)
}

async fn a_revoked_lease_takes_its_keys(store: &dyn Store) {
    let lease = store.grant_lease(600).await.unwrap();
    put_leased(store, "/a", lease).await.unwrap();
    put_leased(store, "/b", lease).await.unwrap();
    put(store, "/c", "stays").await;
    assert_eq!(read(store, "/a", None).await.unwrap().kvs[0].lease, lease);
    let mut watch = store.watch(KeyRange::prefix("/"), 0).await.unwrap();
    store.revoke_lease(lease).await.unwrap();
    let mut seen = events(&mut watch, 2).await;
    seen.sort();
    assert_eq!(seen, ["5 delete /a was /a=x", "5 delete /b was /b=x"]);
    assert_eq!(shown(store, "/", None).await, ["/c=stays"]);
}

async fn a_key_leaves_its_lease(store: &dyn Store) {
    let (first, second) = (store.grant_lease(600).await.unwrap(), store.grant_lease(600).await.unwrap());
    assert_ne!(first, second);
    for key in ["/plain", "/moved", "/deleted"] {
        put_leased(store, key, first).await.unwrap();
    }
    put(store, "/plain", "free").await;
    put_leased(store, "/moved", second).await.unwrap();
    delete(store, "/deleted").await;
    put(store, "/deleted", "again").await;
    store.revoke_lease(first).await.unwrap();
    assert_eq!(shown(store, "/", None).await, ["/deleted=again", "/moved=x", "/plain=free"]);
    store.revoke_lease(second).await.unwrap();
    assert_eq!(shown(store, "/", None).await, ["/deleted=again", "/plain=free"]);
}

async fn unknown_leases_are_refused(store: &dyn Store) {
    let lease = store.grant_lease(600).await.unwrap();
    store.renew_lease(lease).await.unwrap();
    store.revoke_lease(lease).await.unwrap();
    assert_eq!(store.renew_lease(lease).await, Err(StoreError::NoSuchLease(lease)));
    assert_eq!(store.revoke_lease(lease).await, Err(StoreError::NoSuchLease(lease)));
    assert_eq!(put_leased(store, "/a", lease).await, Err(StoreError::NoSuchLease(lease)));
    assert_eq!(store.revision().await.unwrap(), 1);
}

async fn a_lease_ends_by_itself(store: &dyn Store) {
    let long = store.grant_lease(600).await.unwrap();
    let short = store.grant_lease(1).await.unwrap();
    put_leased(store, "/long", long).await.unwrap();
    put_leased(store, "/short", short).await.unwrap();
    let mut watch = store.watch(KeyRange::key("/short"), 0).await.unwrap();
    assert_eq!(events(&mut watch, 1).await, ["4 delete /short was /short=x"]);
    assert_eq!(shown(store, "/", None).await, ["/long=x"]);
}
