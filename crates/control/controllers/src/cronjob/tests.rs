//! Jobs start at their times, and old ones are forgotten.

use super::run;
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_clock::Clock;
use pintle_types::k8s::api::batch::v1::{CronJob, Job, JobCondition};
use pintle_types::{Kind, Time};
use serde_json::{Value, json};

fn cron(spec: Value) -> Value {
    let mut object = json!({
        "metadata": { "name": "tick", "namespace": "d" },
        "spec": { "schedule": "* * * * *", "successfulJobsHistoryLimit": 1, "jobTemplate": { "spec": { "template": {} } } },
    });
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object
}

fn finish(cluster: &Cluster) {
    for job in cluster.api.all::<Job>() {
        if job.status.is_none() {
            cluster.change::<Job>("d", job.name(), |job| {
                job.status.get_or_insert_default().conditions = Some(vec![JobCondition {
                    type_: "Complete".into(),
                    status: "True".into(),
                    last_transition_time: Some(Time(cluster.clock.now_seconds())),
                    ..JobCondition::default()
                }]);
            });
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_starts_every_minute_and_one_old_one_is_kept() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    cluster.create::<CronJob>(cron(json!({}))).await;
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..20 {
        cluster.pass(10.0).await;
        names.extend(cluster.api.all::<Job>().iter().map(|job| job.name().to_owned()));
        finish(&cluster);
    }
    assert!((3..=4).contains(&names.len()), "{names:?}");
    assert_eq!(cluster.api.all::<Job>().len(), 1);
    let status = cluster.api.get::<CronJob>("d", "tick").unwrap().status.unwrap();
    assert!(status.active.is_none() && status.last_successful_time.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_running_job_forbids_the_next() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    cluster.create::<CronJob>(cron(json!({ "concurrencyPolicy": "Forbid" }))).await;
    cluster.pass(300.0).await;
    assert_eq!(cluster.api.all::<Job>().len(), 1);
    finish(&cluster);
    cluster.until("the next", |api| api.all::<Job>().iter().any(|job| job.status.is_none())).await;
}

#[tokio::test(start_paused = true)]
async fn a_suspended_one_starts_nothing() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    cluster.create::<CronJob>(cron(json!({ "suspend": true }))).await;
    cluster.pass(300.0).await;
    assert!(cluster.api.all::<Job>().is_empty());
}
