//! Lives of pods from the first sight of them to the last, in a pretending runtime and paused time.

use crate::actor::{Actor, Wanted};
use crate::fake::api::{FakeApi, FakeEvents, host};
use crate::fake::pods::named;
use crate::fake::{FakeRuntime, Script};
use crate::host::Host;
use futures::StreamExt;
use jiff::Timestamp;
use pintle_clock::RuntimeClock;
use pintle_cri::RuntimeService;
use pintle_types::Time;
use pintle_types::k8s::api::core::v1::Pod;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

/// A node with one pod.
struct Node {
    host: Arc<Host>,
    runtime: Arc<FakeRuntime>,
    api: Arc<FakeApi>,
    events: Arc<FakeEvents>,
    dir: tempfile::TempDir,
}

struct Life {
    wanted: watch::Sender<Wanted>,
    actor: JoinHandle<()>,
    _events: AbortOnDrop,
}

struct AbortOnDrop(AbortHandle);
impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Node {
    fn new() -> Self {
        let clock = RuntimeClock::new(Timestamp::from_second(1_700_000_000).unwrap());
        let runtime = FakeRuntime::new(clock.clone());
        let (api, events) = (FakeApi::new(), Arc::new(FakeEvents::default()));
        let dir = crate::fake::temporary_directory();
        let host = host(dir.path(), clock, runtime.clone(), api.clone(), events.clone());
        Self { host, runtime, api, events, dir }
    }

    /// An actor for the pod, woken by the runtime's events as the kubelet's loop does it.
    async fn live(&self, pod: Pod) -> Life {
        let pod = Arc::new(pod);
        let (wanted, inbox) = watch::channel(Wanted::Present(pod.clone()));
        let wake = Arc::new(Notify::new());
        let mut events = self.runtime.events().await.unwrap();
        let bell = wake.clone();
        let ringing = tokio::spawn(async move {
            while events.next().await.is_some() {
                bell.notify_one();
            }
        });
        let actor = tokio::spawn(Actor::new(self.host.clone(), pod, inbox, wake).run());
        Life { wanted, actor, _events: AbortOnDrop(ringing.abort_handle()) }
    }

    async fn phase(&self, phase: &str) -> Value {
        self.api.until("p", |s| s["phase"] == phase).await
    }

    fn starts(&self) -> Vec<String> {
        self.runtime.calls().into_iter().filter(|c| c.starts_with("start ")).collect()
    }
}

fn pod(spec: Value) -> Pod {
    named("p", "u1", spec)
}

fn deleted(mut pod: Pod, grace: i64) -> Wanted {
    pod.metadata.deletion_timestamp = Some(Time(Timestamp::from_second(1_700_000_000).unwrap()));
    pod.metadata.deletion_grace_period_seconds = Some(grace);
    Wanted::Present(Arc::new(pod))
}

fn waiting(status: &Value) -> &str {
    status["containerStatuses"][0]["state"]["waiting"]["reason"].as_str().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_until_it_is_deleted_and_leaves_nothing() {
    let node = Node::new();
    let spec = json!({"containers": [{"name": "web", "image": "i"}], "volumes": [{"name": "v", "emptyDir": {}}]});
    let life = node.live(pod(spec.clone())).await;
    let status = node.phase("Running").await;
    assert_eq!(status["podIP"], "10.42.0.3");
    assert!(node.dir.path().join("kubelet/pods/u1/volumes/kubernetes.io~empty-dir/v").is_dir());
    life.wanted.send_replace(deleted(pod(spec), 30));
    life.actor.await.unwrap();
    assert!(node.runtime.is_empty());
    assert!(!node.dir.path().join("kubelet/pods/u1").exists());
    assert!(!node.dir.path().join("logs/default_p_u1").exists());
    assert!(node.api.deleted.borrow().contains("p"));
    let last = node.api.statuses.borrow()["p"].clone();
    assert_eq!((&last["phase"], &last["containerStatuses"][0]["ready"]), (&json!("Succeeded"), &json!(false)));
    assert!(node.runtime.calls().contains(&"stop web in 30".to_owned()));
    let counted = node.host.measures.render();
    for step in ["create", "kill"] {
        let line = format!("kubelet_pod_worker_duration_seconds_count{{operation_type=\"{step}\"}}");
        assert!(counted.contains(&line), "{line} is missing in\n{counted}");
    }
    let events = node.events.0.lock().clone();
    let expected = [
        "Pulled Container image \"i\" already present on machine and can be accessed by the pod",
        "Created Container created",
        "Started Container started",
        "Killing Stopping container web",
    ];
    assert_eq!(events, expected);
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_resized_in_place() {
    let node = Node::new();
    let sized = |cpu: &str| {
        pod(json!({"containers": [{"name": "web", "image": "i", "resources": {"requests": {"cpu": cpu}}}]}))
    };
    let life = node.live(sized("500m")).await;
    node.phase("Running").await;
    life.wanted.send_replace(Wanted::Present(Arc::new(sized("1"))));
    let cpu = |s: &Value| s["containerStatuses"][0]["resources"]["requests"]["cpu"].clone();
    let status = node.api.until("p", |s| cpu(s) == "1").await;
    assert_eq!(status["containerStatuses"][0]["allocatedResources"]["cpu"], "1");
    assert_eq!(node.starts(), ["start web/0"]);
    life.wanted.send_replace(Wanted::Present(Arc::new(sized("64"))));
    let pending = |s: &Value| s["conditions"].to_string().contains("\"Infeasible\"");
    let status = node.api.until("p", pending).await;
    assert_eq!(cpu(&status), "1");
    assert_eq!(node.runtime.calls().iter().filter(|c| *c == "resize web").count(), 1);
    life.wanted.send_replace(Wanted::Gone);
    life.actor.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_evicted_pod_fails_and_says_why() {
    let node = Node::new();
    let pod = Arc::new(pod(json!({"containers": [{"name": "web", "image": "i"}]})));
    let (_wanted, inbox) = watch::channel(Wanted::Present(pod.clone()));
    let (wake, slot) = (Arc::new(Notify::new()), crate::ending::Slot::default());
    let actor = Actor::new(node.host.clone(), pod, inbox, wake.clone()).admitted(slot.clone(), Ok(None));
    let running = tokio::spawn(actor.run());
    node.phase("Running").await;
    let message = "The node was low on resource: memory. ".to_owned();
    let ended = crate::status::Ended { reason: "Evicted".into(), message: message.clone() };
    *slot.lock() = Some(crate::ending::Ending { ended, grace: 1, hastens: false, held: None });
    wake.notify_one();
    let status = node.api.until("p", |s| s["containerStatuses"][0]["state"]["terminated"].is_object()).await;
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("Evicted")));
    assert_eq!(status["message"], message);
    let target = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!((&target["status"], &target["reason"]), (&json!("True"), &json!("TerminationByKubelet")));
    assert!(
        node.runtime.calls().contains(&"stop web in 2".to_owned())
            || node.runtime.calls().contains(&"stop web in 1".to_owned())
    );
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn init_containers_come_first_and_in_order() {
    let node = Node::new();
    for name in ["i", "j"] {
        node.runtime.script(name, Script { exits: Some(0), ..Default::default() });
    }
    let spec = json!({"initContainers": [{"name": "i", "image": "i"}, {"name": "j", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]});
    let _life = node.live(pod(spec)).await;
    let status = node.phase("Running").await;
    assert_eq!(node.starts(), ["start i/0", "start j/0", "start a/0", "start b/0"]);
    assert_eq!(status["initContainerStatuses"][1]["ready"], true);
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_waits_longer_each_time() {
    let node = Node::new();
    node.runtime.script("web", Script { exits: Some(1), ..Default::default() });
    let begin = Instant::now();
    let _life = node.live(pod(json!({"containers": [{"name": "web", "image": "i"}]}))).await;
    for (restarts, at_seconds, delay) in [(1, 0, "10s"), (2, 10, "20s"), (3, 30, "40s"), (4, 70, "1m20s")] {
        let message = format!("back-off {delay} restarting failed container=web pod=p_default(u1)");
        let status =
            node.api.until("p", |s| s["containerStatuses"][0]["state"]["waiting"]["message"] == *message).await;
        assert_eq!(
            (waiting(&status), &status["containerStatuses"][0]["restartCount"]),
            ("CrashLoopBackOff", &json!(restarts))
        );
        assert_eq!(begin.elapsed().as_secs(), at_seconds, "{delay}");
    }
    let events = node.events.0.lock().clone();
    assert!(events.contains(&"BackOff Back-off restarting failed container web in pod p_default(u1)".to_owned()));
    assert!(node.runtime.calls().len() < 20, "dead containers do not pile up");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_waits_longer_each_time() {
    let node = Node::new();
    node.runtime.script("web", Script { stays: Some("no way".into()), ..Default::default() });
    let begin = Instant::now();
    let _life = node.live(pod(json!({"containers": [{"name": "web", "image": "i"}]}))).await;
    for (delay, at_seconds) in [("10s", 0), ("20s", 10), ("40s", 30)] {
        let message = format!("back-off {delay} restarting failed container=web pod=p_default(u1)");
        node.api.until("p", |s| s["containerStatuses"][0]["state"]["waiting"]["message"] == *message).await;
        assert_eq!(begin.elapsed().as_secs(), at_seconds, "{delay}");
    }
    assert!(node.runtime.calls().len() < 20, "{:?}", node.runtime.calls());
}

#[tokio::test(start_paused = true)]
async fn a_job_ends_and_is_kept_to_be_looked_at() {
    let node = Node::new();
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "job", "image": "i"}]});
    let life = node.live(pod(spec.clone())).await;
    node.phase("Running").await;
    let id = node.runtime.running()["job"].clone();
    node.runtime.end(&id, 3, "Error");
    let status = node.phase("Failed").await;
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["exitCode"], 3);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!node.runtime.is_empty() && !life.actor.is_finished());
    life.wanted.send_replace(deleted(pod(spec), 0));
    life.actor.await.unwrap();
    assert!(node.runtime.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_second_shorter_deletion_is_honoured() {
    let node = Node::new();
    node.runtime.script("web", Script { ignores_stop: true, ..Default::default() });
    let spec = json!({"containers": [{"name": "web", "image": "i"}]});
    let life = node.live(pod(spec.clone())).await;
    node.phase("Running").await;
    let begin = Instant::now();
    life.wanted.send_replace(deleted(pod(spec.clone()), 300));
    tokio::time::sleep(Duration::from_secs(5)).await;
    life.wanted.send_replace(deleted(pod(spec), 4));
    life.actor.await.unwrap();
    assert_eq!(begin.elapsed().as_secs(), 9);
}

#[tokio::test(start_paused = true)]
async fn the_hook_before_the_stop_counts_as_grace() {
    let node = Node::new();
    node.runtime.script("web", Script { ignores_stop: true, ..Default::default() });
    let hook = json!({"preStop": {"sleep": {"seconds": 7}}});
    let spec = json!({"containers": [{"name": "web", "image": "i", "lifecycle": hook}]});
    let life = node.live(pod(spec.clone())).await;
    node.phase("Running").await;
    let begin = Instant::now();
    life.wanted.send_replace(deleted(pod(spec), 10));
    life.actor.await.unwrap();
    assert_eq!(begin.elapsed().as_secs(), 10);
    assert!(node.runtime.calls().contains(&"stop web in 3".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn what_runs_is_adopted_after_a_restart() {
    let node = Node::new();
    let spec = json!({"containers": [{"name": "web", "image": "i",
        "readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 5}}]});
    let life = node.live(pod(spec.clone())).await;
    node.api.until("p", |s| s["containerStatuses"][0]["ready"] == true).await;
    life.actor.abort();
    assert!(life.actor.await.unwrap_err().is_cancelled());
    let before = node.runtime.running();
    let mut again = pod(spec);
    let status = node.api.statuses.borrow()["p"].clone();
    again.status = Some(serde_json::from_value(status).unwrap());
    node.api.statuses.send_modify(|all| all.clear());
    let _life = node.live(again).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(node.runtime.running(), before);
    assert_eq!(node.starts(), ["start web/0"]);
    assert!(node.api.statuses.borrow().is_empty(), "nothing changed, so nothing was pushed");
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_pulled_is_tried_again_later() {
    let node = Node::new();
    node.runtime.hide_image("none");
    let _life = node.live(pod(json!({"containers": [{"name": "web", "image": "none"}]}))).await;
    node.api.until("p", |s| waiting(s) == "ErrImagePull").await;
    let status = node.api.until("p", |s| waiting(s) == "ImagePullBackOff").await;
    let message = status["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap();
    assert_eq!(message, "Back-off pulling image \"none\": ErrImagePull: image \"none\" not found");
    node.api.until("p", |s| waiting(s) == "ErrImagePull").await;
    let events = node.events.0.lock().clone();
    let first = [
        "Pulling Pulling image \"none\"",
        "Failed Failed to pull image \"none\": image \"none\" not found",
        "Failed Error: ErrImagePull",
    ];
    assert_eq!(events[..3], first);
    let told = events.iter().filter(|event| *event == "Failed Error: ErrImagePull").count();
    let counted = node.host.measures.render();
    let labels = "container_type=\"container\",code=\"ErrImagePull\"";
    assert!(counted.contains(&format!("kubelet_started_containers_errors_total{{{labels}}} {told}\n")), "{counted}");
}

#[tokio::test(start_paused = true)]
async fn a_missing_config_map_holds_the_pod_until_it_is_there() {
    let node = Node::new();
    let spec = json!({"containers": [{"name": "web", "image": "i",
        "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}]}]});
    let _life = node.live(pod(spec)).await;
    let status = node.api.until("p", |s| waiting(s) == "CreateContainerConfigError").await;
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["message"], "configmap \"m\" not found");
    let map = serde_json::from_value(json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "v"}})).unwrap();
    node.api.config_maps.lock().insert("m".into(), map);
    node.phase("Running").await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_pod() {
    let node = Node::new();
    let _life =
        node.live(pod(json!({"activeDeadlineSeconds": 20, "containers": [{"name": "web", "image": "i"}]}))).await;
    let begin = Instant::now();
    let status = node.phase("Failed").await;
    assert_eq!(status["reason"], "DeadlineExceeded");
    assert_eq!(begin.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_container_whose_liveness_fails_is_restarted() {
    let node = Node::new();
    node.runtime.script("web", Script { exec_code: 1, ..Default::default() });
    let probe = json!({"exec": {"command": ["check"]}, "periodSeconds": 10, "failureThreshold": 3});
    let _life = node.live(pod(json!({"containers": [{"name": "web", "image": "i", "livenessProbe": probe}]}))).await;
    let begin = Instant::now();
    let status = node.api.until("p", |s| s["containerStatuses"][0]["restartCount"] == 1).await;
    assert_eq!(begin.elapsed().as_secs(), 20, "the probes at 0, 10 and 20 seconds fail");
    assert_eq!(status["phase"], "Running");
    let events = node.events.0.lock().clone();
    let kill = "Killing Container web failed liveness probe, will be restarted";
    let before = events.iter().take_while(|e| *e != kill);
    assert_eq!(before.filter(|e| e.starts_with("Unhealthy Liveness probe failed: ")).count(), 3);
    assert!(events.iter().any(|e| e == kill));
}

#[tokio::test(start_paused = true)]
async fn liveness_that_fails_again_and_again_is_a_crash_loop() {
    let node = Node::new();
    node.runtime.script("web", Script { exec_code: 1, ..Default::default() });
    let probe = json!({"exec": {"command": ["check"]}, "periodSeconds": 1, "failureThreshold": 1});
    let _life = node.live(pod(json!({"containers": [{"name": "web", "image": "i", "livenessProbe": probe}]}))).await;
    let status = node.api.until("p", |s| waiting(s) == "CrashLoopBackOff").await;
    let restarts = status["containerStatuses"][0]["restartCount"].as_i64().unwrap();
    assert!(restarts <= 2, "{restarts} restarts without a delay");
    let next = restarts + 1;
    let begin = Instant::now();
    node.api.until("p", |s| s["containerStatuses"][0]["restartCount"] == next).await;
    assert!(begin.elapsed().as_secs() >= 9);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_vanishes_is_cleaned_away() {
    let node = Node::new();
    let life = node.live(pod(json!({"containers": [{"name": "web", "image": "i"}]}))).await;
    node.phase("Running").await;
    life.wanted.send_replace(Wanted::Gone);
    life.actor.await.unwrap();
    assert!(node.runtime.is_empty());
    assert!(node.api.deleted.borrow().is_empty());
}

#[tokio::test]
async fn logs_of_a_pod_that_is_gone_are_found_and_removed() {
    let node = Node::new();
    let logs = &node.host.settings.log_dir;
    for name in ["default_gone_u7/c", "default_other_u8/c", "of-somebody-else"] {
        std::fs::create_dir_all(logs.join(name)).unwrap();
    }
    let left = crate::purge::uids_present(&node.host).await.unwrap();
    assert_eq!(left.into_iter().collect::<Vec<_>>(), ["u7", "u8"]);
    crate::purge::pod(&node.host, "u7", None).await.unwrap();
    assert!(!logs.join("default_gone_u7").exists());
    assert!(logs.join("default_other_u8").exists() && logs.join("of-somebody-else").exists());
}

#[tokio::test(start_paused = true)]
async fn images_that_are_volumes_are_found_and_mounted() {
    let node = Node::new();
    let volume = json!({"name": "v", "image": {"reference": "vol:1", "pullPolicy": "Never"}});
    let mount = json!({"name": "v", "mountPath": "/v", "subPath": "x"});
    let spec = json!({"containers": [{"name": "web", "image": "i", "volumeMounts": [mount]}], "volumes": [volume]});
    node.runtime.hide_image("vol:1");
    let life = node.live(pod(spec.clone())).await;
    node.api.until("p", |s| waiting(s) == "ErrImageNeverPull").await;
    let words = "ErrImageNeverPull Container image \"vol:1\" is not present with pull policy of Never";
    assert!(node.events.0.lock().iter().any(|event| event == words));
    life.wanted.send_replace(Wanted::Gone);
    life.actor.await.unwrap();
    let node = Node::new();
    let _life = node.live(pod(spec)).await;
    node.phase("Running").await;
    let (_, id) = node.runtime.running().pop_first().unwrap();
    let mounts = node.runtime.container_status(&id).await.unwrap().mounts;
    let found = mounts.iter().find(|mount| mount.container_path == "/v").unwrap();
    let (host_path, sub_path) = (found.host_path.as_str(), found.sub_path.as_str());
    assert_eq!((found.image.as_str(), host_path, sub_path, found.readonly), ("sha256:vol:1", "", "x", true));
}

#[tokio::test(start_paused = true)]
async fn users_of_a_pods_own_need_a_runtime_that_can_do_it() {
    let node = Node::new();
    let _life = node.live(pod(json!({"hostUsers": false, "containers": [{"name": "web", "image": "i"}]}))).await;
    let words = "FailedCreatePodSandBox Failed to create pod sandbox: can't set `spec.hostUsers: false`, runtime does \
                 not support user namespaces";
    let told = async {
        while !node.events.0.lock().iter().any(|event| event == words) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told).await.expect("an event says why");
}
