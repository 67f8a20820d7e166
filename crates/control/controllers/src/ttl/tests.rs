//! Finished Jobs go when their time is over, and no others.

use super::run;
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_types::Kind;
use pintle_types::k8s::api::batch::v1::Job;
use serde_json::json;

#[tokio::test(start_paused = true)]
async fn a_finished_job_goes_when_its_time_is_over() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    for (name, done) in [("done", true), ("running", false)] {
        let conditions = match done {
            // 1_700_000_000 is when the test's cluster begins.
            true => json!([{ "type": "Complete", "status": "True", "lastTransitionTime": "2023-11-14T22:13:20Z" }]),
            false => json!([]),
        };
        cluster
            .create::<Job>(json!({
                "metadata": { "name": name, "namespace": "d" },
                "spec": { "ttlSecondsAfterFinished": 100, "template": {} },
                "status": { "conditions": conditions },
            }))
            .await;
    }
    cluster.pass(95.0).await;
    assert!(!cluster.api.get::<Job>("d", "done").unwrap().is_deleting());
    cluster.until("it goes", |api| api.get::<Job>("d", "done").is_none_or(|job| job.is_deleting())).await;
    assert!(!cluster.api.get::<Job>("d", "running").unwrap().is_deleting());
}
