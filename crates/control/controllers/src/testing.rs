//! For tests: an API server in memory, the controllers under test, and a kubelet that says what it is told.

use crate::context::Context;
use crate::run::Start;
use pintle_client::Client;
use pintle_clock::{Clock, RuntimeClock, Timestamp};
use pintle_fake_api::FakeApi;
use pintle_informer::{Informers, Recorder};
use pintle_types::k8s::api::core::v1::{Event, Pod, PodCondition, PodStatus};
use pintle_types::{Kind, Time};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A cluster whose controllers end with the test. Use it with paused time.
pub struct Cluster {
    pub api: FakeApi,
    pub client: Client,
    pub clock: Arc<RuntimeClock>,
    informers: Informers,
    stop: CancellationToken,
    _guard: DropGuard,
}

impl Cluster {
    pub fn new() -> Self {
        let api = FakeApi::new();
        let stop = CancellationToken::new();
        let start = Timestamp::from_second(1_700_000_000).unwrap();
        api.set_time(1_700_000_000);
        Self {
            client: api.client(),
            informers: Informers::new(api.client(), stop.clone()),
            clock: RuntimeClock::new(start),
            api,
            _guard: stop.clone().drop_guard(),
            stop,
        }
    }

    /// What a controller is given.
    pub fn context(&self) -> Context {
        let clock: Arc<dyn Clock> = self.clock.clone();
        Context {
            client: self.client.clone(),
            informers: self.informers.clone(),
            recorder: Recorder::with_clock(self.client.clone(), "test", "", clock.clone()),
            clock,
            stop: self.stop.clone(),
        }
    }

    /// Starts a controller.
    pub fn start(self, start: Start) -> Self {
        tokio::spawn(start(self.context()));
        self
    }

    /// Creates an object from JSON, with the defaults that matter left to the test.
    pub async fn create<K: Kind>(&self, object: Value) -> K {
        self.client.create(&K::from_value(object).expect("the test's object is one")).await.expect("it is created")
    }

    /// Lets (paused) time pass until a condition holds; fails after ten minutes of it.
    pub async fn until(&self, what: &str, holds: impl Fn(&FakeApi) -> bool) {
        for _ in 0..6000 {
            if holds(&self.api) {
                return;
            }
            self.pass(0.1).await;
        }
        let pods: Vec<String> = self.api.all::<Pod>().iter().map(|pod| pod.name().to_owned()).collect();
        panic!("in vain: {what}; pods {pods:?}; events {:?}", self.events());
    }

    /// Lets (paused) time pass.
    pub async fn pass(&self, seconds: f64) {
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        self.api.set_time(u64::try_from(self.clock.now().as_second()).unwrap());
    }

    /// Changes an object.
    pub fn change<K: Kind>(&self, namespace: &str, name: &str, change: impl FnOnce(&mut K)) -> K {
        let mut object = self.api.get::<K>(namespace, name).expect("it is there");
        change(&mut object);
        self.api.put(&object)
    }

    /// Names of the pods for which something holds.
    pub fn pods(&self, holds: impl Fn(&Pod) -> bool) -> Vec<String> {
        self.api.all::<Pod>().iter().filter(|pod| holds(pod)).map(|pod| pod.name().to_owned()).collect()
    }

    /// What a kubelet says of a pod.
    pub fn report(&self, namespace: &str, name: &str, phase: &str) {
        let now = Time(self.clock.now_seconds());
        self.change::<Pod>(namespace, name, |pod| {
            let ready = if phase == "Running" { "True" } else { "False" };
            pod.spec.get_or_insert_default().node_name = Some("node".into());
            pod.status = Some(PodStatus {
                phase: Some(phase.into()),
                pod_ip: Some("10.0.0.7".into()),
                conditions: Some(vec![PodCondition {
                    type_: "Ready".into(),
                    status: ready.into(),
                    last_transition_time: Some(now),
                    ..PodCondition::default()
                }]),
                ..PodStatus::default()
            });
        });
    }

    /// Runs every new pod, and removes the ones that are being deleted, until a condition holds.
    pub async fn run_pods_until(&self, what: &str, holds: impl Fn(&FakeApi) -> bool) {
        self.until(what, |api| {
            for pod in api.all::<Pod>() {
                if pod.is_deleting() {
                    api.remove::<Pod>(pod.namespace(), pod.name());
                } else if pod.status.is_none() {
                    self.report(pod.namespace(), pod.name(), "Running");
                }
            }
            holds(api)
        })
        .await;
    }

    /// Reasons and messages of all events, in order of posting.
    pub fn events(&self) -> Vec<String> {
        let mut events = self.api.all::<Event>();
        events.sort_by_key(|event| event.metadata.resource_version.as_ref().and_then(|v| v.parse::<u64>().ok()));
        let text = |event: &Event| {
            format!("{}: {}", event.reason.as_deref().unwrap_or_default(), event.message.as_deref().unwrap_or_default())
        };
        events.iter().map(text).collect()
    }
}

/// A pod template with one container.
pub fn template(app: &str, image: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": app } },
        "spec": { "containers": [{ "name": "main", "image": image }] },
    })
}
