//! Transactions: conditions, all-or-nothing, revisions.

use super::*;

pub(super) async fn run<F, Made>(make: &F)
where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Store>>,
{
    revisions_count_changes(&*make().await).await;
    versions_belong_to_a_life_of_a_key(&*make().await).await;
    conditions_choose_the_branch(&*make().await).await;
    one_of_two_writers_wins(&*make().await).await;
    operations_share_a_revision(&*make().await).await;
    operations_see_earlier_ones(&*make().await).await;
    a_key_changes_once_in_a_transaction(&*make().await).await;
    concurrent_writers_lose_nothing(make().await).await;
}

async fn revisions_count_changes(store: &dyn Store) {
    assert_eq!(store.revision().await.unwrap(), 1, "the empty store");
    assert_eq!(put(store, "/a", "1").await, 2);
    assert_eq!(put(store, "/a", "1").await, 3, "a put of the same value is a change");
    assert_eq!(delete(store, "/absent").await, 3, "deleting nothing is none");
    let then = vec![Op::Get(KeyRange::key("/a"))];
    let result = store.txn(Txn { then, ..Txn::default() }).await.unwrap();
    assert_eq!((result.revision, show(&result.results[0][0])), (3, "/a=1".to_owned()));
    assert_eq!(delete(store, "/a").await, 4);
    assert_eq!(store.revision().await.unwrap(), 4);
}

async fn versions_belong_to_a_life_of_a_key(store: &dyn Store) {
    put(store, "/k", "1").await;
    put(store, "/k", "2").await;
    let numbers = |kv: &KeyValue| (kv.create_revision, kv.mod_revision, kv.version);
    let kv = read(store, "/k", None).await.unwrap().kvs.remove(0);
    assert_eq!(numbers(&kv), (2, 3, 2));
    delete(store, "/k").await;
    put(store, "/k", "3").await;
    let kv = read(store, "/k", None).await.unwrap().kvs.remove(0);
    assert_eq!(numbers(&kv), (5, 5, 1));
}

async fn conditions_choose_the_branch(store: &dyn Store) {
    let key = Bytes::from_static(b"/c");
    let created = Compare::CreateRevision(key.clone(), 0);
    let txn =
        Txn { compare: vec![created], then: vec![op_put("/c", "new")], otherwise: vec![Op::Get(KeyRange::key("/c"))] };
    assert!(store.txn(txn.clone()).await.unwrap().succeeded);
    let second = store.txn(txn).await.unwrap();
    assert!(!second.succeeded);
    assert_eq!(show(&second.results[0][0]), "/c=new");
    put(store, "/c", "newer").await;
    for (compare, holds) in [
        (vec![unchanged_since("/c", 2)], false),
        (vec![unchanged_since("/c", 3)], true),
        (vec![unchanged_since("/c", 3), unchanged_since("/absent", 0)], true),
        (vec![unchanged_since("/c", 3), unchanged_since("/absent", 1)], false),
        (vec![Compare::CreateRevision(key.clone(), 2)], true),
        (vec![], true),
    ] {
        let result = store.txn(Txn { compare: compare.clone(), ..Txn::default() }).await.unwrap();
        assert_eq!((result.succeeded, result.revision), (holds, 3), "{compare:?}");
    }
}

async fn one_of_two_writers_wins(store: &dyn Store) {
    let base = put(store, "/w", "0").await;
    let write = |value: &str| Txn {
        compare: vec![unchanged_since("/w", base)],
        then: vec![op_put("/w", value)],
        ..Txn::default()
    };
    let (a, b) = tokio::join!(store.txn(write("a")), store.txn(write("b")));
    let (a, b) = (a.unwrap().succeeded, b.unwrap().succeeded);
    assert!(a != b, "exactly one of them: {a} {b}");
    assert_eq!(shown(store, "/w", None).await, [if a { "/w=a" } else { "/w=b" }]);
}

async fn operations_share_a_revision(store: &dyn Store) {
    put(store, "/old/1", "x").await;
    put(store, "/old/2", "y").await;
    let then = vec![op_put("/new/1", "x"), op_put("/new/2", "y"), Op::Delete(KeyRange::prefix("/old/"))];
    let result = store.txn(Txn { then, ..Txn::default() }).await.unwrap();
    assert_eq!(result.revision, 4);
    assert_eq!(result.results[2].iter().map(show).collect::<Vec<_>>(), ["/old/1=x", "/old/2=y"]);
    let all = read(store, "/", None).await.unwrap().kvs;
    assert_eq!(all.iter().map(|kv| kv.mod_revision).collect::<Vec<_>>(), [4, 4]);
    assert_eq!(shown(store, "/", Some(3)).await, ["/old/1=x", "/old/2=y"]);
}

async fn operations_see_earlier_ones(store: &dyn Store) {
    let then = vec![op_put("/s", "1"), Op::Get(KeyRange::key("/s"))];
    let result = store.txn(Txn { then, ..Txn::default() }).await.unwrap();
    assert_eq!(result.results[1].iter().map(show).collect::<Vec<_>>(), ["/s=1"]);
}

async fn a_key_changes_once_in_a_transaction(store: &dyn Store) {
    for then in [vec![op_put("/t", "1"), op_put("/t", "2")], vec![op_put("/t", "1"), Op::Delete(KeyRange::prefix("/"))]]
    {
        let result = store.txn(Txn { then, ..Txn::default() }).await;
        assert!(matches!(result, Err(StoreError::Invalid(_))), "{result:?}");
    }
    assert_eq!(store.revision().await.unwrap(), 1, "nothing was changed");
    assert!(shown(store, "/", None).await.is_empty());
}

async fn concurrent_writers_lose_nothing(store: Arc<dyn Store>) {
    let writers = (0..32).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for i in 0..10 {
                put(&*store, &format!("/{writer}/{i}"), "x").await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("writer");
    }
    let result = read(&*store, "/", None).await.unwrap();
    assert_eq!((result.count, result.revision), (320, 321));
    let mut revisions: Vec<_> = result.kvs.iter().map(|kv| kv.mod_revision).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (2..=321).collect::<Vec<_>>(), "a revision each");
}
