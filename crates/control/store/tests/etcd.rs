//! The etcd backend passes the contract on real servers, through their failures and with certificates.

use parking_lot::Mutex;
use pintle_clock::Clock;
use pintle_store::etcd::{EtcdStore, Options};
use pintle_store::{Compare, KeyRange, Op, RangeRequest, Revision, Store, StoreError, Txn};
use pintle_store_contract::etcd::Cluster;
use pintle_store_contract::history::{Action, Operation, Ticks, is_linearizable};
use pintle_store_contract::{PATIENCE, events, next, put, read, shown, try_put};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

async fn open_with(endpoints: Vec<String>) -> EtcdStore {
    let options = Options { compact_every: None, ..Options::new(endpoints) };
    EtcdStore::open(options).await.expect("open")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract() {
    // Checks come one after the other: when one begins, the last one's server is needed no more.
    let current = Mutex::new(None);
    pintle_store_contract::run_all(|| async {
        let cluster = Cluster::start(1);
        let store = open_with(cluster.endpoints()).await;
        *current.lock() = Some(cluster);
        Arc::new(store) as Arc<dyn Store>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_have_the_prefix_that_was_asked_for() {
    let cluster = Cluster::start(1);
    let options = Options { prefix: "/mine".into(), compact_every: None, ..Options::new(cluster.endpoints()) };
    let (ours, raw) = (EtcdStore::open(options).await.expect("open"), open_with(cluster.endpoints()).await);
    let mut watch = ours.watch(KeyRange::prefix("/registry/"), 0).await.expect("watch");
    put(&ours, "/registry/pods/default/a", "1").await;
    assert_eq!(shown(&raw, "/mine/", None).await, ["/mine/pods/default/a=1"]);
    assert_eq!(shown(&ours, "/registry/", None).await, ["/registry/pods/default/a=1"]);
    assert_eq!(events(&mut watch, 1).await, ["2 put /registry/pods/default/a=1"]);
    let unchanged = Compare::ModRevision("/registry/pods/default/a".into(), 2);
    assert!(ours.txn(Txn { compare: vec![unchanged], ..Txn::default() }).await.expect("txn").succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_take_turns_at_compacting() {
    let cluster = Cluster::start(1);
    let every = Duration::from_millis(50);
    let open = || EtcdStore::open(Options { compact_every: Some(every), ..Options::new(cluster.endpoints()) });
    let (one, _other) = (open().await.expect("open"), open().await.expect("open"));
    let mut oldest: Revision = 0;
    let started = tokio::time::Instant::now();
    // It is compacted up to what was written an interval ago, and goes on being so.
    while oldest < 20 {
        assert!(started.elapsed() < PATIENCE, "compacted up to {oldest} only");
        put(&one, "/k", "x").await;
        if let Err(StoreError::Compacted { oldest: found, .. }) = read(&one, "/", Some(1)).await {
            oldest = found;
        }
    }
    assert_eq!(shown(&one, "/k", None).await, ["/k=x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_told_how_far_it_is_when_others_write_elsewhere() {
    let cluster = Cluster::start(1);
    let store = open_with(cluster.endpoints()).await;
    let mut watch = store.watch(KeyRange::prefix("/in/"), 0).await.expect("watch");
    let elsewhere = put(&store, "/out", "x").await;
    store.request_progress();
    assert!(next(&mut watch).await.expect("batch").revision >= elsewhere);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_not_there_is_an_error() {
    let cluster = Cluster::start(1);
    let endpoints = cluster.endpoints();
    let impatient = Options { patience: Duration::from_millis(500), ..Options::new(endpoints.clone()) };
    drop(open_with(endpoints).await);
    let store = EtcdStore::open(impatient).await.expect("open");
    let mut watch = store.watch(KeyRange::prefix("/"), 0).await.expect("watch");
    put(&store, "/a", "1").await;
    assert_eq!(events(&mut watch, 1).await.len(), 1);
    drop(cluster);
    let failed = try_put(&store, "/a", "2").await;
    assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
    for bad in ["127.0.0.1:1", "https://127.0.0.1:1", ""] {
        let opened = EtcdStore::open(Options::new([bad.to_owned()])).await;
        assert!(matches!(opened.err(), Some(StoreError::Unavailable(why)) if why.contains("endpoint")), "{bad}");
    }
}

/// What the clients of a run share.
struct Run {
    ticks: Ticks,
    /// How many operations were answered.
    answered: watch::Sender<u64>,
    values: AtomicU64,
    over: watch::Receiver<bool>,
}

const KEYS: u64 = 4;

/// Reads and writes one register after the other until the run is over; answers what it did by register.
async fn client(run: Arc<Run>, store: Arc<EtcdStore>, number: u64) -> Vec<(u64, Operation)> {
    let mut done = Vec::new();
    for i in number.. {
        if *run.over.borrow() {
            break;
        }
        let register = i % KEYS;
        let key = format!("/r/{register}");
        let called = run.ticks.next();
        let (action, answered) = if (i / KEYS).is_multiple_of(2) {
            let value = run.values.fetch_add(1, Ordering::Relaxed);
            (Action::Write(value), try_put(&*store, &key, &value.to_string()).await.is_ok())
        } else {
            let found = store.range(RangeRequest { range: KeyRange::key(key), at: None, limit: 0 }).await;
            (Action::Read(found.as_ref().ok().and_then(seen)), found.is_ok())
        };
        done.push((register, Operation { called, returned: answered.then(|| run.ticks.next()), action }));
        run.answered.send_modify(|count| *count += u64::from(answered));
    }
    done
}

fn seen(result: &pintle_store::RangeResult) -> Option<u64> {
    let kv = result.kvs.first()?;
    Some(std::str::from_utf8(&kv.value).expect("text").parse().expect("a number"))
}

/// Waits until so many more operations were answered.
async fn progress(run: &Run, count: u64) {
    let mut answered = run.answered.subscribe();
    let goal = *answered.borrow() + count;
    let reached = tokio::time::timeout(PATIENCE, answered.wait_for(|answered| *answered >= goal)).await;
    reached.expect("the cluster makes no progress").expect("the run goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_members_fail() {
    let mut cluster = Cluster::start(3).with_proxies().await;
    let store = Arc::new(open_with(cluster.endpoints()).await);
    let (end, over) = watch::channel(false);
    let (ticks, values) = (Ticks::default(), AtomicU64::new(1));
    let run = Arc::new(Run { ticks, answered: watch::Sender::new(0), values, over });
    let mut watch = store.watch(KeyRange::prefix("/r/"), 2).await.expect("watch");
    let clients: Vec<_> = (0..3).map(|number| tokio::spawn(client(run.clone(), store.clone(), number))).collect();
    for member in 0..3 {
        progress(&run, 10).await;
        cluster.kill(member);
        progress(&run, 10).await;
        cluster.run(member);
        progress(&run, 10).await;
        cluster.pause((member + 1) % 3);
        progress(&run, 10).await;
        cluster.resume((member + 1) % 3);
        cluster.cut_off((member + 2) % 3);
        progress(&run, 10).await;
        cluster.join((member + 2) % 3);
    }
    end.send_replace(true);
    let mut registers: BTreeMap<u64, Vec<Operation>> = BTreeMap::new();
    for client in clients {
        for (register, operation) in client.await.expect("client") {
            registers.entry(register).or_default().push(operation);
        }
    }
    for (register, mut history) in registers {
        let key = KeyRange::key(format!("/r/{register}"));
        let called = run.ticks.next();
        let found = store.range(RangeRequest { range: key, at: None, limit: 0 }).await.expect("read");
        let action = Action::Read(seen(&found));
        history.push(Operation { called, returned: Some(run.ticks.next()), action });
        assert!(is_linearizable(&history), "register {register}: {history:?}");
    }
    check_watch(&store, &mut watch).await;
}

/// The watch that was begun at first saw every revision once and in order, through all failures.
async fn check_watch(store: &EtcdStore, watch: &mut pintle_store::WatchStream) {
    let last = put(store, "/r/last", "x").await;
    let mut expected = 2;
    while expected <= last {
        let batch = next(watch).await.expect("batch");
        for event in &batch.events {
            let (pintle_store::Event::Put { kv, .. } | pintle_store::Event::Delete { kv, .. }) = event;
            assert_eq!((batch.revision, kv.mod_revision), (expected, expected));
            expected += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_writers_each_time_one_wins() {
    let cluster = Cluster::start(3);
    let store = Arc::new(open_with(cluster.endpoints()).await);
    let writers = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut won = 0;
            while won < 5 {
                let found = read(&*store, "/count", None).await.expect("read");
                let (value, revision) =
                    found.kvs.first().map_or((0, 0), |kv| (seen(&found).unwrap_or(0), kv.mod_revision));
                let then = vec![Op::Put { key: "/count".into(), value: (value + 1).to_string().into(), lease: 0 }];
                let compare = vec![Compare::ModRevision("/count".into(), revision)];
                let result = store.txn(Txn { compare, then, otherwise: Vec::new() }).await.expect("txn");
                won += u64::from(result.succeeded);
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("writer");
    }
    assert_eq!(shown(&*store, "/count", None).await, ["/count=40"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_open_the_way() {
    let directory = tempfile::tempdir().expect("directory");
    let at = |name: &str| directory.path().join(name);
    let now = pintle_clock::SystemClock.now();
    let authority = pintle_pki::CertificateAuthority::create(directory.path(), "ca", now).expect("authority");
    let names = ["127.0.0.1".to_owned()];
    authority.server_in(directory.path(), "server", &names, now).expect("server");
    let client = authority.issue_client("client", &[], now).expect("client");
    let security = pintle_store_contract::etcd::Security {
        certificate: at("server.crt"),
        key: at("server.key"),
        authority: at("ca.crt"),
    };
    let cluster = Cluster::with(1, Some(&security), &[]);
    let open = |identity, patience| {
        let tls = pintle_pki::client_config(authority.certificate_pem(), identity).expect("settings");
        let endpoints = cluster.secure_endpoints();
        let options = Options { tls: Some(tls), compact_every: None, patience, ..Options::new(endpoints) };
        EtcdStore::open(options)
    };
    let patience = Duration::from_secs(15);
    let store = open(Some(&client), patience).await.expect("open");
    assert_eq!(put(&store, "/a", "1").await, 2);
    assert!(
        matches!(open(None, Duration::ZERO).await.err(), Some(StoreError::Unavailable(_))),
        "nobody is let in without"
    );
}
