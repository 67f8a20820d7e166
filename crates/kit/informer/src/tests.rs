//! Informers, queues and reconcilers against an API server in memory, in paused time.

use crate::{Change, Informer, Informers, Outcome, Queue, Selector, run_reconciler};
use parking_lot::Mutex;
use pintle_fake_api::FakeApi;
use pintle_types::k8s::api::core::v1::ConfigMap;
use pintle_types::{Kind, ObjectKey, ObjectMeta, Status};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

fn config(name: &str, app: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some("default".into()),
            labels: Some(BTreeMap::from([("app".into(), app.into())])),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}

fn by_app(config: &ConfigMap) -> Vec<String> {
    config.label("app").map(str::to_owned).into_iter().collect()
}

/// What the handler hears, as text.
fn hear(informer: &Informer<ConfigMap>) -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    informer.on_change(move |change| {
        let verb = match change {
            Change::Added(_) => "added",
            Change::Modified(..) => "modified",
            Change::Deleted(_) => "deleted",
        };
        sender.send(format!("{verb} {}", change.object().name())).expect("the test listens");
    });
    receiver
}

#[tokio::test(start_paused = true)]
async fn an_informer_follows_its_collection_through_breaks_and_compaction() {
    let api = FakeApi::new();
    api.put(&config("a", "x"));
    let stop = CancellationToken::new();
    let configs = Informers::new(api.client(), stop.clone()).of::<ConfigMap>();
    configs.index("app", by_app);
    let mut heard = hear(&configs);
    configs.synced().await;
    assert_eq!(heard.recv().await.unwrap(), "added a");

    api.put(&config("b", "x"));
    assert_eq!(heard.recv().await.unwrap(), "added b");
    assert_eq!(configs.by_index("app", "x").len(), 2);

    api.break_watches();
    api.put(&config("b", "y"));
    assert_eq!(heard.recv().await.unwrap(), "modified b");
    assert_eq!(configs.by_index("app", "x").len(), 1);

    api.take_requests();
    api.remove::<ConfigMap>("default", "a");
    api.put(&config("c", "x"));
    assert_eq!(heard.recv().await.unwrap(), "deleted a");
    assert_eq!(heard.recv().await.unwrap(), "added c");

    // What happened while the version was lost is found by comparing.
    api.compact();
    api.remove::<ConfigMap>("default", "b");
    api.put(&config("c", "z"));
    api.compact();
    assert_eq!(heard.recv().await.unwrap(), "deleted b");
    assert_eq!(heard.recv().await.unwrap(), "modified c");
    assert_eq!(configs.by_index("app", "z").len(), 1);
    assert!(configs.by_index("app", "y").is_empty());
    let lists = api.take_requests().iter().filter(|r| !r.query.contains_key("watch")).count();
    assert!(lists <= 2, "listed {lists} times");
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn informers_of_a_kind_are_shared_and_selectors_are_kept_apart() {
    let api = FakeApi::new();
    api.put(&config("a", "x"));
    api.put(&config("b", "y"));
    let informers = Informers::new(api.client(), CancellationToken::new());
    let (one, two) = (informers.of::<ConfigMap>(), informers.of::<ConfigMap>());
    let selected = informers.selected::<ConfigMap>(Selector::labels("app=y"));
    one.synced().await;
    selected.synced().await;
    let key = ObjectKey::new("default", "a");
    assert!(Arc::ptr_eq(&one.get(&key).unwrap(), &two.get(&key).unwrap()));
    assert_eq!(selected.list().len(), 1);
    assert_eq!(one.in_namespace("default").len(), 2);
    assert!(one.in_namespace("defaul").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_late_handler_hears_of_everything_there_is() {
    let api = FakeApi::new();
    api.put(&config("a", "x"));
    let configs = Informers::new(api.client(), CancellationToken::new()).of::<ConfigMap>();
    configs.synced().await;
    assert_eq!(hear(&configs).recv().await.unwrap(), "added a");
}

#[tokio::test(start_paused = true)]
async fn an_informer_waits_for_a_server_that_is_not_there_yet() {
    let api = FakeApi::new();
    api.put(&config("a", "x"));
    let mut refusals = 5;
    api.react(move |_| {
        refusals -= 1;
        (refusals > 0).then(|| pintle_types::Status::internal("starting"))
    });
    let configs = Informers::new(api.client(), CancellationToken::new()).of::<ConfigMap>();
    configs.synced().await;
    assert_eq!(configs.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_waits_once_and_runs_again_when_added_while_running() {
    let queue: Queue<u32> = Queue::new();
    queue.add(1);
    queue.add(1);
    queue.add(2);
    assert_eq!(queue.next().await, Some(1));
    queue.add(1);
    assert_eq!(queue.next().await, Some(2));
    assert_eq!(queue.stats().depth, 0);
    queue.done(&1);
    assert_eq!(queue.next().await, Some(1));
    queue.shut_down();
    assert_eq!(queue.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn delayed_keys_come_at_their_soonest_time() {
    let queue: Queue<u32> = Queue::new();
    let start = tokio::time::Instant::now();
    queue.add_after(1, Duration::from_secs(10));
    queue.add_after(2, Duration::from_secs(5));
    queue.add_after(1, Duration::from_secs(3));
    queue.add_after(1, Duration::from_secs(8));
    assert_eq!(queue.next().await, Some(1));
    assert_eq!(start.elapsed().as_secs(), 3);
    queue.done(&1);
    assert_eq!(queue.next().await, Some(2));
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_and_panics_stay_inside() {
    let queue: Queue<&'static str> = Queue::new();
    let stop = CancellationToken::new();
    let times = Arc::new(Mutex::new(Vec::new()));
    let runs = Arc::new(AtomicUsize::new(0));
    queue.add("key");
    let (seen, count, end) = (times.clone(), runs.clone(), stop.clone());
    let reconcile = move |_key| {
        let run = count.fetch_add(1, Ordering::Relaxed);
        seen.lock().push(tokio::time::Instant::now());
        let end = end.clone();
        async move {
            match run {
                0 => Err(Status::internal("no").into()),
                1 => panic!("a bug"),
                2 => Ok(Outcome::After(Duration::from_secs(7))),
                _ => {
                    end.cancel();
                    Ok(Outcome::Done)
                }
            }
        }
    };
    run_reconciler("test", queue.clone(), 2, reconcile, stop).await;
    let times = times.lock().clone();
    let gaps: Vec<u128> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
    assert!(gaps[0] >= 5 && gaps[1] >= 10 && gaps[2] >= 7000, "{gaps:?}");
    let stats = queue.stats();
    assert_eq!((stats.failures, stats.panics, stats.retries), (2, 1, 2));
    assert!(stats.successes >= 1);
    assert_eq!(queue.next().await, None);
}
