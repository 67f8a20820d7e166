//! Watches: order, ranges, replay, compaction, the end.

use super::*;

pub(super) async fn run<F, Made>(make: &F)
where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Store>>,
{
    changes_come_with_what_was_before(&*make().await).await;
    only_the_range_is_seen(&*make().await).await;
    the_past_is_replayed(&*make().await).await;
    a_transaction_is_one_batch(&*make().await).await;
    a_replay_meets_the_present_without_a_gap(make().await).await;
    the_compacted_past_is_refused(&*make().await).await;
    a_future_revision_is_waited_for(&*make().await).await;
    watches_end_with_the_store(make().await).await;
}

async fn changes_come_with_what_was_before(store: &dyn Store) {
    put(store, "/before", "x").await;
    let mut watch = store.watch(KeyRange::prefix("/"), 0).await.unwrap();
    put(store, "/a", "1").await;
    put(store, "/a", "2").await;
    delete(store, "/a").await;
    let seen = events(&mut watch, 3).await;
    assert_eq!(seen, ["3 put /a=1", "4 put /a=2 was /a=1", "5 delete /a was /a=2"]);
}

async fn only_the_range_is_seen(store: &dyn Store) {
    let mut prefix = store.watch(KeyRange::prefix("/in/"), 0).await.unwrap();
    let mut key = store.watch(KeyRange::key("/in/b"), 0).await.unwrap();
    for name in ["/in/a", "/out/a", "/in/b", "/inside"] {
        put(store, name, "x").await;
    }
    assert_eq!(events(&mut prefix, 2).await, ["2 put /in/a=x", "4 put /in/b=x"]);
    assert_eq!(events(&mut key, 1).await, ["4 put /in/b=x"]);
    store.request_progress();
    loop {
        let batch = next(&mut prefix).await.unwrap();
        assert!(batch.events.is_empty(), "{batch:?}");
        // Saying how far it is may itself have been a change elsewhere.
        if batch.revision >= 5 {
            break;
        }
    }
}

async fn the_past_is_replayed(store: &dyn Store) {
    put(store, "/r", "1").await;
    put(store, "/r", "2").await;
    delete(store, "/r").await;
    let mut watch = store.watch(KeyRange::prefix("/"), 3).await.unwrap();
    put(store, "/r", "3").await;
    let seen = events(&mut watch, 3).await;
    assert_eq!(seen, ["3 put /r=2 was /r=1", "4 delete /r was /r=2", "5 put /r=3"]);
}

async fn a_transaction_is_one_batch(store: &dyn Store) {
    put(store, "/t/old", "x").await;
    let mut watch = store.watch(KeyRange::prefix("/t/"), 0).await.unwrap();
    let then = vec![op_put("/t/new", "x"), Op::Delete(KeyRange::key("/t/old")), op_put("/u", "y")];
    store.txn(Txn { then, ..Txn::default() }).await.unwrap();
    let batch = next(&mut watch).await.unwrap();
    let seen: Vec<_> = batch.events.iter().map(|event| show_event(batch.revision, event)).collect();
    assert_eq!(seen, ["3 put /t/new=x", "3 delete /t/old was /t/old=x"]);
}

async fn a_replay_meets_the_present_without_a_gap(store: Arc<dyn Store>) {
    const CHANGES: usize = 2000;
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for group in 0..CHANGES / 20 {
                let puts = (0..20).map(|i| put_numbered(&*store, group * 20 + i));
                futures::future::join_all(puts).await;
            }
        }
    });
    let mut expected = 2;
    let mut watch = store.watch(KeyRange::prefix("/"), 2).await.unwrap();
    while expected < 2 + CHANGES as Revision {
        let batch = next(&mut watch).await.unwrap();
        if !batch.events.is_empty() {
            assert_eq!(batch.revision, expected);
            expected += 1;
        }
    }
    writer.await.expect("writer");
}

async fn put_numbered(store: &dyn Store, number: usize) {
    put(store, &format!("/{number}"), "x").await;
}

async fn the_compacted_past_is_refused(store: &dyn Store) {
    for value in ["1", "2", "3"] {
        put(store, "/c", value).await;
    }
    store.compact(3).await.unwrap();
    let refused = match store.watch(KeyRange::prefix("/"), 2).await {
        Err(error) => error,
        Ok(mut watch) => next(&mut watch).await.unwrap_err(),
    };
    assert_eq!(refused, StoreError::Compacted { asked: 2, oldest: 3 });
    let mut watch = store.watch(KeyRange::prefix("/"), 3).await.unwrap();
    assert_eq!(events(&mut watch, 2).await.len(), 2);
}

async fn a_future_revision_is_waited_for(store: &dyn Store) {
    let mut watch = store.watch(KeyRange::prefix("/"), 4).await.unwrap();
    for value in ["1", "2", "3"] {
        put(store, "/f", value).await;
    }
    assert_eq!(events(&mut watch, 1).await, ["4 put /f=3 was /f=2"]);
}

async fn watches_end_with_the_store(store: Arc<dyn Store>) {
    let mut watch = store.watch(KeyRange::prefix("/"), 0).await.unwrap();
    drop(store);
    let ended = tokio::time::timeout(PATIENCE, watch.next()).await.expect("the watch goes on");
    assert!(matches!(ended, None | Some(Err(StoreError::Closed))), "{ended:?}");
}
