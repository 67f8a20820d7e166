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
                job.status.get_or_insert_default().completion_time = Some(Time(cluster.clock.now_seconds()));
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

#[tokio::test(start_paused = true)]
async fn a_replaced_job_goes_and_a_zone_is_told() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    let spec = json!({ "concurrencyPolicy": "Replace", "timeZone": "America/New_York" });
    cluster.create::<CronJob>(cron(spec)).await;
    cluster.until("the first", |api| api.all::<Job>().len() == 1).await;
    let first = cluster.api.all::<Job>()[0].clone();
    let told = first.annotation("batch.kubernetes.io/cronjob-scheduled-timestamp").unwrap();
    assert!(told.ends_with("-05:00"), "{told}");
    cluster.until("the second", |api| api.all::<Job>().iter().any(|job| job.name() != first.name())).await;
    cluster.until("the first goes", |api| api.get::<Job>("d", first.name()).is_none()).await;
    let deleted = format!("SuccessfulDelete: Deleted job {}", first.name());
    cluster.until("it is told", |_| cluster.events().contains(&deleted)).await;
    let active = || cluster.api.get::<CronJob>("d", "tick").unwrap().status.unwrap().active.unwrap_or_default();
    cluster.until("one is active", |_| active().len() == 1).await;
}

#[test]
fn missed_times_are_counted_from_the_last_run_or_the_deadline() {
    use super::plan::{missed, wake};
    use super::schedule::Schedule;
    use jiff::tz::TimeZone;
    let check = |schedule: &str, last: &str, deadline: Option<i64>, now: &str| {
        let mut object = cron(json!({ "schedule": schedule, "startingDeadlineSeconds": deadline }));
        object["status"] = json!({ "lastScheduleTime": last });
        let cron = CronJob::from_value(object).unwrap();
        let schedule = Schedule::parse(schedule, &TimeZone::UTC).unwrap();
        let now = now.parse().unwrap();
        let missed = missed(&cron, &schedule, now, true);
        let wake = wake(&cron, &schedule, now).unwrap();
        let last = missed.last.map(|last| last.to_string()).unwrap_or_default();
        (last, missed.too_many, wake.to_string())
    };
    // The example of the documentation: every minute from 08:30, down from 08:29 to 10:21.
    let (last, start, end) = ("2024-01-01T08:29:00Z", "2024-01-01T10:21:00Z", "2024-01-01T10:22:00Z");
    assert_eq!(check("* * * * *", last, None, start), (start.into(), true, end.into()));
    assert_eq!(check("* * * * *", last, Some(200), start), (start.into(), false, end.into()));
    let day = ("2024-01-02T00:00:00Z", "2024-01-02T12:00:00Z", "2024-01-03T00:00:00Z");
    assert_eq!(check("@daily", "2024-01-01T00:00:00Z", None, day.1), (day.0.into(), false, day.2.into()));
    assert_eq!(check("@daily", "2024-01-01T00:00:00Z", Some(60), day.1), (String::new(), false, day.2.into()));
    // What began at odd times goes on at them.
    let odd = check("@every 5m", "2024-01-01T00:01:07Z", None, "2024-01-01T00:12:00Z");
    assert_eq!(odd, ("2024-01-01T00:11:07Z".into(), false, "2024-01-01T00:16:07Z".into()));
}
