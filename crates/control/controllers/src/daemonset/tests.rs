//! One pod per fitting node, replaced one after the other.

use super::run;
use crate::pods;
use crate::testing::{Cluster, template};
use futures::FutureExt;
use pintle_fake_api::FakeApi;
use pintle_types::Kind;
use pintle_types::k8s::api::apps::v1::DaemonSet;
use pintle_types::k8s::api::core::v1::{Node, Pod};
use serde_json::json;
use std::collections::BTreeMap;

async fn cluster() -> Cluster {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    for name in ["a", "b", "c"] {
        cluster.create::<Node>(json!({ "metadata": { "name": name, "labels": { "disk": "fast" } } })).await;
    }
    let mut template = template("agent", "agent:1");
    template["spec"]["nodeSelector"] = json!({ "disk": "fast" });
    cluster
        .create::<DaemonSet>(json!({
            "metadata": { "name": "agent", "namespace": "d" },
            "spec": { "selector": { "matchLabels": { "app": "agent" } }, "template": template },
        }))
        .await;
    cluster
}

/// Binds pods to the nodes that they are meant for, runs them, and removes the deleted ones.
fn run_pods(cluster: &Cluster, api: &FakeApi) {
    for pod in api.all::<Pod>() {
        if pod.is_deleting() {
            api.remove::<Pod>("d", pod.name());
        } else if pod.status.is_none() {
            let node = super::plan::node_of(&pod).unwrap().to_owned();
            cluster.report("d", pod.name(), "Running");
            cluster.change::<Pod>("d", pod.name(), |pod| pod.spec.as_mut().unwrap().node_name = Some(node));
        }
    }
}

fn nodes_of(api: &FakeApi, image: &str) -> Vec<String> {
    let fits =
        |pod: &Pod| pods::is_active(pod) && pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some(image);
    let mut nodes: Vec<String> =
        api.all::<Pod>().iter().filter(|pod| fits(pod)).map(|pod| pods::node_name(pod).to_owned()).collect();
    nodes.sort();
    nodes
}

fn ready(cluster: &Cluster, count: i32) -> bool {
    let status = cluster.api.get::<DaemonSet>("d", "agent").and_then(|set| set.status).unwrap_or_default();
    (status.desired_number_scheduled, status.number_ready, status.updated_number_scheduled)
        == (count, count, Some(count))
}

#[tokio::test(start_paused = true)]
async fn each_fitting_node_has_one_pod() {
    let cluster = cluster().await;
    cluster
        .until("three", |api| {
            run_pods(&cluster, api);
            ready(&cluster, 3)
        })
        .await;
    assert_eq!(nodes_of(&cluster.api, "agent:1"), ["a", "b", "c"]);
    cluster.change::<Node>("", "b", |node| node.metadata.labels = Some(BTreeMap::new()));
    cluster
        .until("two", |api| {
            run_pods(&cluster, api);
            ready(&cluster, 2)
        })
        .await;
    assert_eq!(nodes_of(&cluster.api, "agent:1"), ["a", "c"]);
    cluster.create::<Node>(json!({ "metadata": { "name": "new", "labels": { "disk": "fast" } } })).await;
    cluster
        .until("three again", |api| {
            run_pods(&cluster, api);
            ready(&cluster, 3)
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_update_takes_one_node_after_the_other() {
    let cluster = cluster().await;
    cluster
        .until("three", |api| {
            run_pods(&cluster, api);
            ready(&cluster, 3)
        })
        .await;
    let mut set = cluster.client.get::<DaemonSet>("d", "agent").await.unwrap();
    set.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].image = Some("agent:2".into());
    cluster.client.update(&set).await.unwrap();
    cluster
        .until("all updated", |api| {
            run_pods(&cluster, api);
            let well = api.all::<Pod>().iter().filter(|pod| pods::is_ready(pod)).count();
            assert!(well >= 2, "{well}");
            nodes_of(api, "agent:2") == ["a", "b", "c"] && ready(&cluster, 3)
        })
        .await;
}

mod plans {
    use super::super::plan::{ByNode, place, replace};
    use crate::testing::template;
    use pintle_clock::Timestamp;
    use pintle_types::Kind;
    use pintle_types::k8s::api::apps::v1::DaemonSet;
    use pintle_types::k8s::api::core::v1::{Node, Pod};
    use serde_json::{Value, json};
    use std::sync::Arc;

    /// What is done about nodes that have these pods, each `node:letters`: old or new, well, broken, failed, ended or
    /// deleted. `-` stands for a node without any.
    fn check(rolling: Value, there: &str, held: &str) -> String {
        let set = DaemonSet::from_value(json!({
            "metadata": { "name": "agent", "namespace": "d", "uid": "u" },
            "spec": {
                "selector": {}, "template": template("agent", "agent:1"),
                "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": rolling },
            },
        }))
        .unwrap();
        let (mut nodes, mut pods) = (Vec::new(), ByNode::new());
        for (age, word) in there.split_whitespace().enumerate() {
            let (node, letters) = word.split_once(':').unwrap();
            if !nodes.iter().any(|known: &Arc<Node>| known.name() == node) {
                nodes.push(Arc::new(Node::from_value(json!({ "metadata": { "name": node } })).unwrap()));
            }
            if letters != "-" {
                pods.entry(node.to_owned()).or_default().push(Arc::new(pod(node, letters, age)));
            }
        }
        let held = |node: &str| held.contains(node);
        let now = Timestamp::from_second(1000).unwrap();
        let mut step = place(&set, &nodes, &pods, "new", &held, now);
        if step.is_empty() {
            step = replace(&set, &nodes, &pods, "new", now);
        }
        let created = step.create.iter().map(|node| format!("+{node}"));
        created.chain(step.delete.iter().map(|pod| format!("-{}", pod.name()))).collect::<Vec<_>>().join(" ")
    }

    fn pod(node: &str, letters: &str, age: usize) -> Pod {
        let has = |letter| letters.contains(letter);
        let phase = if has('f') {
            "Failed"
        } else if has('e') {
            "Succeeded"
        } else {
            "Running"
        };
        let created = Timestamp::from_second(i64::try_from(age).unwrap()).unwrap().to_string();
        let mut object = json!({
            "metadata": {
                "name": format!("{node}{letters}"), "namespace": "d", "creationTimestamp": created,
                "labels": { "controller-revision-hash": if has('n') { "new" } else { "old" } },
            },
            "spec": { "nodeName": node, "containers": [] },
            "status": { "phase": phase, "conditions": [
                { "type": "Ready", "status": if has('w') { "True" } else { "False" }, "lastTransitionTime": created },
            ] },
        });
        if has('d') {
            object["metadata"]["deletionTimestamp"] = created.into();
        }
        Pod::from_value(object).unwrap()
    }

    #[test]
    fn nodes_get_one_pod_each_and_updates_keep_within_their_limits() {
        let away = |number: Value| json!({ "maxUnavailable": number, "maxSurge": 0 });
        let surge = |number: Value| json!({ "maxUnavailable": 0, "maxSurge": number });
        let cases = [
            (away(json!(1)), "a:- b:nw", "", "+a"),
            (away(json!(1)), "a:ow a:nw", "", "-anw"),
            (away(json!(1)), "a:nf b:ne", "", "-anf -bne"),
            (away(json!(1)), "a:nf b:nw", "a", ""),
            (away(json!(1)), "a:ow b:ow c:ow", "", "-aow"),
            (away(json!(2)), "a:ow b:ow c:ow", "", "-aow -bow"),
            // A percentage of three nodes is rounded up: 34 % are two of them, 1 % is one.
            (away(json!("34%")), "a:ow b:ow c:ow", "", "-aow -bow"),
            (away(json!("1%")), "a:ow b:ow c:ow", "", "-aow"),
            (away(json!(0)), "a:ow b:ow c:ow", "", "-aow"),
            (away(json!(1)), "a:nb b:ow c:ow", "", ""),
            (away(json!(1)), "a:owd b:ow", "", ""),
            (away(json!(1)), "a:ob b:ow", "", "-aob -bow"),
            (away(json!(2)), "a:nb b:ob c:ow d:ow", "", "-bob -cow"),
            (surge(json!(1)), "a:ow b:ow", "", "+a"),
            (surge(json!("100%")), "a:ow b:ow", "", "+a +b"),
            (surge(json!(1)), "a:ow a:nb b:ow", "", ""),
            (surge(json!(1)), "a:ow a:nw b:ow", "", "-aow"),
            (surge(json!(1)), "a:ob a:nb b:ow", "", "-aob"),
            (surge(json!(1)), "a:ob b:ow", "", "+a +b"),
            (surge(json!(1)), "a:nw b:nw", "", ""),
            (surge(json!(1)), "a:ow a:nw a:nb b:nw", "", "-anb -aow"),
        ];
        for (rolling, there, held, expected) in cases {
            assert_eq!(check(rolling.clone(), there, held), expected, "{there} {rolling}");
        }
    }
}
