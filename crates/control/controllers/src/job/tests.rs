//! Jobs complete, fail, wait, and count each pod once.

use super::plan::{COMPLETE, FAILED, condition};
use super::run;
use super::track::FINALIZER;
use crate::pods;
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_types::Kind;
use pintle_types::k8s::api::batch::v1::{Job, JobStatus};
use pintle_types::k8s::api::core::v1::Pod;
use serde_json::{Value, json};

fn job(spec: Value) -> Value {
    let mut object = json!({
        "metadata": { "name": "work", "namespace": "d" },
        "spec": {
            "completions": 1, "parallelism": 1, "backoffLimit": 6,
            "template": { "spec": { "restartPolicy": "Never", "containers": [{ "name": "main" }] } },
        },
    });
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object
}

fn cluster() -> Cluster {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    let api = cluster.api.clone();
    // The fake knows no strategic patches, so finalizers are taken off here.
    cluster.api.react(move |asked| {
        let gone = asked.body["metadata"].get("$deleteFromPrimitiveList/finalizers")?;
        assert_eq!(*gone, json!([FINALIZER]));
        let api = api.clone();
        let (namespace, name) = (asked.namespace.clone(), asked.name.clone());
        tokio::spawn(async move {
            if let Some(mut pod) = api.get::<Pod>(&namespace, &name) {
                pod.metadata.finalizers = None;
                match pod.is_deleting() {
                    true => api.remove::<Pod>(&namespace, &name),
                    false => drop(api.put(&pod)),
                }
            }
        });
        Some(pintle_types::Status::not_found("", "pods", "taken care of"))
    });
    cluster
}

fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

fn status(cluster: &Cluster) -> JobStatus {
    cluster.api.get::<Job>("d", "work").and_then(|job| job.status).unwrap_or_default()
}

fn is(cluster: &Cluster, type_: &str) -> bool {
    cluster.api.get::<Job>("d", "work").is_some_and(|job| condition(&job, type_).is_some())
}

fn running(cluster: &Cluster) -> Vec<String> {
    cluster.pods(pods::is_active)
}

#[tokio::test(start_paused = true)]
async fn a_job_runs_until_enough_pods_have_succeeded() {
    let cluster = cluster();
    cluster.create::<Job>(job(json!({ "completions": 3, "parallelism": 2 }))).await;
    let most = std::cell::Cell::new(0);
    cluster
        .until("it completes", |api| {
            let active = running(&cluster);
            most.set(most.get().max(active.len()));
            assert!(api.all::<Pod>().iter().all(|pod| pods::is_finished(pod) || is_tracked(pod)));
            if let Some(name) = active.first() {
                cluster.report("d", name, "Succeeded");
            }
            is(&cluster, COMPLETE)
        })
        .await;
    let status = status(&cluster);
    assert_eq!((status.succeeded, status.failed, status.active), (Some(3), None, None));
    assert!(status.completion_time.is_some() && status.start_time.is_some());
    assert_eq!((cluster.api.all::<Pod>().len(), most.get()), (3, 2));
    cluster.until("no pod is held", |api| !api.all::<Pod>().iter().any(is_tracked)).await;
    cluster.until("the event", |_| cluster.events().contains(&"Completed: Job completed".to_owned())).await;
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_ever_later_up_to_the_limit() {
    let cluster = cluster();
    cluster.create::<Job>(job(json!({ "backoffLimit": 2 }))).await;
    let mut times = Vec::new();
    for _ in 0..3 {
        cluster.until("a pod", |_| !running(&cluster).is_empty()).await;
        times.push(tokio::time::Instant::now());
        cluster.report("d", &running(&cluster)[0], "Failed");
        cluster.until("it is seen", |_| running(&cluster).is_empty()).await;
    }
    cluster.until("it fails", |_| is(&cluster, FAILED)).await;
    let job = cluster.api.get::<Job>("d", "work").unwrap();
    let failed = condition(&job, FAILED).unwrap();
    assert_eq!(failed.reason.as_deref(), Some("BackoffLimitExceeded"));
    assert_eq!(failed.message.as_deref(), Some("Job has reached the specified backoff limit"));
    assert_eq!(status(&cluster).failed, Some(3));
    let waits: Vec<u64> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert!((9..13).contains(&waits[0]) && (19..23).contains(&waits[1]), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn an_indexed_job_runs_each_index() {
    let cluster = cluster();
    let spec = json!({ "completions": 3, "parallelism": 3, "completionMode": "Indexed" });
    cluster.create::<Job>(job(spec)).await;
    cluster.until("three pods", |_| running(&cluster).len() == 3).await;
    let pods = cluster.api.all::<Pod>();
    let mut hostnames: Vec<String> = pods.iter().filter_map(|pod| pod.spec.as_ref()?.hostname.clone()).collect();
    hostnames.sort();
    assert_eq!(hostnames, ["work-0", "work-1", "work-2"]);
    let env = pods[0].spec.as_ref().unwrap().containers[0].env.as_ref().unwrap();
    assert_eq!(env[0].name, "JOB_COMPLETION_INDEX");
    cluster
        .until("it completes", |_| {
            running(&cluster).iter().for_each(|name| cluster.report("d", name, "Succeeded"));
            is(&cluster, COMPLETE)
        })
        .await;
    assert_eq!(status(&cluster).completed_indexes.as_deref(), Some("0-2"));
}

#[tokio::test(start_paused = true)]
async fn a_suspended_job_has_no_pods_and_a_late_one_fails() {
    let cluster = cluster();
    cluster.create::<Job>(job(json!({ "suspend": true, "activeDeadlineSeconds": 60 }))).await;
    cluster.pass(120.0).await;
    assert!(running(&cluster).is_empty() && is(&cluster, "Suspended"));
    let mut job = cluster.client.get::<Job>("d", "work").await.unwrap();
    job.spec.as_mut().unwrap().suspend = Some(false);
    cluster.client.update(&job).await.unwrap();
    cluster.until("a pod", |_| running(&cluster).len() == 1).await;
    cluster.until("the deadline", |_| is(&cluster, FAILED)).await;
    let job = cluster.api.get::<Job>("d", "work").unwrap();
    assert_eq!(condition(&job, FAILED).unwrap().reason.as_deref(), Some("DeadlineExceeded"));
    assert!(running(&cluster).is_empty());
}

/// Makes a pod fail with a code, as a kubelet tells it.
fn fail(cluster: &Cluster, name: &str, code: i32) {
    cluster.report("d", name, "Failed");
    cluster.change::<Pod>("d", name, |pod| {
        let container = json!({ "name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": { "exitCode": code } } });
        pod.status.as_mut().unwrap().container_statuses = serde_json::from_value(json!([container])).ok();
    });
}

fn message_of(cluster: &Cluster, type_: &str) -> String {
    let job = cluster.api.get::<Job>("d", "work").unwrap();
    let condition = condition(&job, type_).unwrap();
    format!("{}: {}", condition.reason.as_deref().unwrap_or_default(), condition.message.as_deref().unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn a_failure_policy_fails_the_job_or_forgives() {
    let cluster = cluster();
    let rules = json!([
        { "action": "FailJob", "onExitCodes": { "containerName": "main", "operator": "In", "values": [42] } },
        { "action": "Ignore", "onExitCodes": { "operator": "In", "values": [7] } },
    ]);
    let spec = json!({ "backoffLimit": 0, "podFailurePolicy": { "rules": rules } });
    cluster.create::<Job>(job(spec)).await;
    cluster.until("a pod", |_| running(&cluster).len() == 1).await;
    let first = running(&cluster)[0].clone();
    fail(&cluster, &first, 7);
    cluster.until("another pod", |_| running(&cluster).first().is_some_and(|name| *name != first)).await;
    assert_eq!(status(&cluster).failed, None, "it was ignored");
    let second = running(&cluster)[0].clone();
    fail(&cluster, &second, 42);
    cluster.until("it fails", |_| is(&cluster, FAILED)).await;
    let message = format!(
        "PodFailurePolicy: Container main for pod d/{second} failed with exit code 42 matching FailJob rule at index 0"
    );
    assert_eq!((message_of(&cluster, FAILED), message_of(&cluster, "FailureTarget")), (message.clone(), message));
    assert_eq!(status(&cluster).failed, Some(1));
}

#[tokio::test(start_paused = true)]
async fn each_index_may_fail_on_its_own() {
    let cluster = cluster();
    let spec = json!({
        "completions": 3, "parallelism": 3, "completionMode": "Indexed", "backoffLimit": 2147483647,
        "backoffLimitPerIndex": 1,
    });
    cluster.create::<Job>(job(spec)).await;
    let index_of = |name: &str| super::plan::index_of(&cluster.api.get::<Pod>("d", name).unwrap());
    cluster
        .until("it is over", |_| {
            for name in running(&cluster) {
                match index_of(&name) {
                    Some(1) => fail(&cluster, &name, 1),
                    _ => cluster.report("d", &name, "Succeeded"),
                }
            }
            is(&cluster, FAILED)
        })
        .await;
    let pods = cluster.api.all::<Pod>();
    let failures = |pod: &&Pod| pod.annotation("batch.kubernetes.io/job-index-failure-count").map(str::to_owned);
    let of_one = pods.iter().filter(|pod| index_of(pod.name()) == Some(1));
    let mut counts: Vec<String> = of_one.filter_map(|pod| failures(&pod)).collect();
    counts.sort();
    assert_eq!(counts, ["0", "1"]);
    let status = status(&cluster);
    assert_eq!(message_of(&cluster, FAILED), "FailedIndexes: Job has failed indexes");
    assert_eq!((status.completed_indexes.as_deref(), status.failed_indexes.as_deref()), (Some("0,2"), Some("1")));
    assert_eq!((status.succeeded, status.failed), (Some(2), Some(2)));
    cluster.until("no pod is held", |api| !api.all::<Pod>().iter().any(is_tracked)).await;
}

/// The example of the documentation, "Backoff limit per index": of ten indexes the even ones fail, each twice.
#[tokio::test(start_paused = true)]
async fn the_documented_job_with_a_limit_for_each_index() {
    let cluster = cluster();
    let spec = json!({
        "completions": 10, "parallelism": 3, "completionMode": "Indexed", "backoffLimit": 2147483647,
        "backoffLimitPerIndex": 1, "maxFailedIndexes": 5,
    });
    cluster.create::<Job>(job(spec)).await;
    let index_of = |name: &str| super::plan::index_of(&cluster.api.get::<Pod>("d", name).unwrap()).unwrap();
    cluster
        .until("it is over", |_| {
            for name in running(&cluster) {
                match index_of(&name) % 2 {
                    0 => fail(&cluster, &name, 1),
                    _ => cluster.report("d", &name, "Succeeded"),
                }
            }
            is(&cluster, FAILED)
        })
        .await;
    let failed = "FailedIndexes: Job has failed indexes".to_owned();
    assert_eq!((message_of(&cluster, FAILED), message_of(&cluster, "FailureTarget")), (failed.clone(), failed));
    let status = status(&cluster);
    assert_eq!(status.completed_indexes.as_deref(), Some("1,3,5,7,9"));
    assert_eq!(status.failed_indexes.as_deref(), Some("0,2,4,6,8"));
    assert_eq!((status.succeeded, status.failed), (Some(5), Some(10)));
}

#[tokio::test(start_paused = true)]
async fn a_success_policy_ends_the_job_early() {
    let cluster = cluster();
    let spec = json!({
        "completions": 3, "parallelism": 3, "completionMode": "Indexed",
        "successPolicy": { "rules": [{ "succeededIndexes": "0" }] },
    });
    cluster.create::<Job>(job(spec)).await;
    cluster.until("three pods", |_| running(&cluster).len() == 3).await;
    let leader = running(&cluster).into_iter().find(|name| name.starts_with("work-0-")).unwrap();
    cluster.report("d", &leader, "Succeeded");
    cluster.until("it completes", |_| is(&cluster, COMPLETE)).await;
    assert_eq!(message_of(&cluster, COMPLETE), "SuccessPolicy: Matched rules at index 0");
    assert_eq!(message_of(&cluster, "SuccessCriteriaMet"), "SuccessPolicy: Matched rules at index 0");
    let status = status(&cluster);
    assert_eq!((status.completed_indexes.as_deref(), status.active), (Some("0"), None));
    assert!(running(&cluster).is_empty());
}

#[tokio::test(start_paused = true)]
async fn too_many_failed_indexes_end_the_job() {
    let cluster = cluster();
    let spec = json!({
        "completions": 4, "parallelism": 4, "completionMode": "Indexed", "backoffLimit": 2147483647,
        "backoffLimitPerIndex": 0, "maxFailedIndexes": 1,
    });
    cluster.create::<Job>(job(spec)).await;
    cluster.until("four pods", |_| running(&cluster).len() == 4).await;
    for name in running(&cluster).iter().filter(|name| name.starts_with("work-0-") || name.starts_with("work-2-")) {
        fail(&cluster, name, 1);
    }
    cluster.until("it fails", |_| is(&cluster, FAILED)).await;
    let expected = "MaxFailedIndexesExceeded: Job has exceeded the specified maximal number of failed indexes";
    assert_eq!(message_of(&cluster, FAILED), expected);
    assert_eq!(status(&cluster).failed_indexes.as_deref(), Some("0,2"));
}

#[tokio::test(start_paused = true)]
async fn a_pod_may_be_replaced_only_when_it_has_failed() {
    let cluster = cluster();
    cluster.create::<Job>(job(json!({ "podReplacementPolicy": "Failed" }))).await;
    cluster.until("a pod", |_| running(&cluster).len() == 1).await;
    let first = running(&cluster)[0].clone();
    cluster.report("d", &first, "Running");
    cluster.client.delete::<Pod>("d", &first, &pintle_client::DeleteOptions::default()).await.unwrap();
    cluster.until("it terminates", |_| status(&cluster).terminating == Some(1)).await;
    cluster.pass(60.0).await;
    assert!(running(&cluster).is_empty(), "it still runs");
    fail(&cluster, &first, 143);
    cluster.until("its successor", |_| running(&cluster).first().is_some_and(|name| *name != first)).await;
    assert_eq!(status(&cluster).failed, Some(1));
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_job_is_left_alone() {
    let cluster = cluster();
    cluster.create::<Job>(job(json!({ "managedBy": "example.com/manager" }))).await;
    cluster.pass(30.0).await;
    assert!(cluster.api.all::<Pod>().is_empty());
    assert_eq!(cluster.api.get::<Job>("d", "work").unwrap().status, None);
}

#[tokio::test(start_paused = true)]
async fn orphans_are_adopted_and_strangers_released() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let patches = asked.clone();
    // The fake knows no strategic patches: what is asked for is noted, and done here.
    cluster.api.react(move |request| {
        let metadata = &request.body["metadata"];
        metadata.get("ownerReferences").and(metadata.get("uid"))?;
        patches.lock().unwrap().push((request.name.clone(), metadata.clone()));
        Some(pintle_types::Status::not_found("", "pods", "taken care of"))
    });
    let selector = json!({ "matchLabels": { "work": "a" } });
    let created =
        cluster.create::<Job>(job(json!({ "parallelism": 0, "completions": null, "selector": selector }))).await;
    let pod = |name: &str, label: &str| json!({ "metadata": { "name": name, "namespace": "d", "labels": { "work": label } }, "spec": { "containers": [] } });
    cluster.create::<Pod>(pod("orphan", "a")).await;
    let mut stranger = pod("stranger", "b");
    stranger["metadata"]["ownerReferences"] = json!([crate::ownership::controller_ref(&created)]);
    cluster.create::<Pod>(stranger).await;
    let asked_of = |name: &str| asked.lock().unwrap().iter().find(|(of, _)| of == name).map(|(_, patch)| patch.clone());
    cluster.until("both are patched", |_| asked_of("orphan").is_some() && asked_of("stranger").is_some()).await;
    let (adopted, released) = (asked_of("orphan").unwrap(), asked_of("stranger").unwrap());
    assert_eq!(adopted["finalizers"], json!([FINALIZER]));
    assert_eq!(adopted["ownerReferences"][0]["uid"], created.uid());
    assert_eq!(released["ownerReferences"][0]["$patch"], "delete");
    assert_eq!(released["$deleteFromPrimitiveList/finalizers"], json!([FINALIZER]));
}
