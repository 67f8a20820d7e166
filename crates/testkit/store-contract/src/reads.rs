//! Reads: ranges, limits, the past, compaction.

use super::*;

pub(super) async fn run<F, Made>(make: &F)
where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Store>>,
{
    ranges_end_before_their_end(&*make().await).await;
    limits_cut_but_count_all(&*make().await).await;
    the_past_stays_readable(&*make().await).await;
    compaction_forgets_the_past(&*make().await).await;
}

async fn ranges_end_before_their_end(store: &dyn Store) {
    for key in ["/a", "/a/1", "/a/2", "/b", "\u{7f}"] {
        put(store, key, "x").await;
    }
    let range = |start: &str, end: Option<&str>| KeyRange {
        start: Bytes::from(start.to_owned()),
        end: end.map(|end| Bytes::from(end.to_owned())),
    };
    for (range, expected) in [
        (range("/a", None), vec!["/a"]),
        (range("/a", Some("/a/2")), vec!["/a", "/a/1"]),
        (range("/a/", Some("/a0")), vec!["/a/1", "/a/2"]),
        (KeyRange::prefix("/a"), vec!["/a", "/a/1", "/a/2"]),
        (range("/b", Some("")), vec!["/b", "\u{7f}"]),
        (range("/b", Some("/a")), vec![]),
        (range("/c", None), vec![]),
        (KeyRange::prefix(""), vec!["/a", "/a/1", "/a/2", "/b", "\u{7f}"]),
    ] {
        for at in [None, Some(6)] {
            let result = store.range(RangeRequest { range: range.clone(), at, limit: 0 }).await.unwrap();
            let keys: Vec<_> = result.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key)).collect();
            assert_eq!(keys, expected, "{range:?}");
            assert_eq!((result.count, result.revision), (expected.len(), 6));
        }
    }
}

async fn limits_cut_but_count_all(store: &dyn Store) {
    for i in 0..5 {
        put(store, &format!("/l/{i}"), "x").await;
    }
    delete(store, "/l/4").await;
    for (at, count) in [(None, 4), (Some(6), 5)] {
        let request = RangeRequest { range: KeyRange::prefix("/l/"), at, limit: 2 };
        let result = store.range(request).await.unwrap();
        assert_eq!(result.kvs.iter().map(show).collect::<Vec<_>>(), ["/l/0=x", "/l/1=x"]);
        assert_eq!(result.count, count);
    }
}

async fn the_past_stays_readable(store: &dyn Store) {
    put(store, "/p/a", "1").await;
    put(store, "/p/b", "1").await;
    put(store, "/p/a", "2").await;
    delete(store, "/p/b").await;
    put(store, "/p/b", "3").await;
    for (at, expected) in [
        (1, vec![]),
        (2, vec!["/p/a=1"]),
        (3, vec!["/p/a=1", "/p/b=1"]),
        (4, vec!["/p/a=2", "/p/b=1"]),
        (5, vec!["/p/a=2"]),
        (6, vec!["/p/a=2", "/p/b=3"]),
    ] {
        assert_eq!(shown(store, "/p/", Some(at)).await, expected, "at {at}");
    }
    let result = read(store, "/p/", Some(4)).await.unwrap();
    assert_eq!(result.revision, 6, "the revision is that of the answer");
    assert_eq!(result.kvs[0].version, 2);
    let future = read(store, "/p/", Some(7)).await;
    assert_eq!(future.unwrap_err(), StoreError::FutureRevision { asked: 7, newest: 6 });
}

async fn compaction_forgets_the_past(store: &dyn Store) {
    put(store, "/k/a", "1").await;
    put(store, "/k/a", "2").await;
    put(store, "/k/b", "1").await;
    delete(store, "/k/b").await;
    store.compact(4).await.unwrap();
    assert_eq!(read(store, "/k/", Some(3)).await.unwrap_err(), StoreError::Compacted { asked: 3, oldest: 4 });
    assert_eq!(shown(store, "/k/", Some(4)).await, ["/k/a=2", "/k/b=1"]);
    assert_eq!(shown(store, "/k/", None).await, ["/k/a=2"]);
    store.compact(2).await.expect("an older compaction is none");
    assert_eq!(shown(store, "/k/", Some(4)).await, ["/k/a=2", "/k/b=1"]);
    assert_eq!(store.compact(6).await.unwrap_err(), StoreError::FutureRevision { asked: 6, newest: 5 });
    assert_eq!(store.revision().await.unwrap(), 5, "a compaction is no change");
}
