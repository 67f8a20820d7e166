//! Defaults and refusals in upstream's words.

use super::{aggregate, check, defaults};
use serde_json::{Value, json};

fn pod(resources: Value) -> Value {
    json!({"spec": {"containers": [{"name": "main", "resources": resources}]}})
}

#[test]
fn containers_get_what_they_lack() {
    let range = json!({"spec": {"limits": [{
        "type": "Container",
        "default": {"cpu": "500m", "memory": "512Mi"}, "defaultRequest": {"cpu": "100m", "memory": "64Mi"},
    }]}});
    let mut object = pod(json!({"requests": {"cpu": "1"}}));
    object["spec"]["initContainers"] = json!([{"name": "first"}]);
    defaults::apply(&range, &mut object);
    let main = &object["spec"]["containers"][0]["resources"];
    assert_eq!(main["requests"], json!({"cpu": "1", "memory": "64Mi"}));
    assert_eq!(main["limits"], json!({"cpu": "500m", "memory": "512Mi"}));
    assert_eq!(
        object["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: memory request for container main; cpu, memory limit for container main; cpu, memory \
         request for init container first; cpu, memory limit for init container first"
    );
}

#[test]
fn limits_are_refused_in_upstreams_words() {
    let cases = [
        (
            json!({"type": "Container", "min": {"cpu": "100m"}}),
            json!({}),
            vec!["minimum cpu usage per Container is 100m.  No request is specified"],
        ),
        (
            json!({"type": "Container", "min": {"cpu": "100m"}}),
            json!({"requests": {"cpu": "50m"}, "limits": {"cpu": "50m"}}),
            vec!["minimum cpu usage per Container is 100m, but request is 50m"],
        ),
        (
            json!({"type": "Container", "max": {"memory": "1Gi"}}),
            json!({"limits": {"memory": "2Gi"}}),
            vec!["maximum memory usage per Container is 1Gi, but limit is 2Gi"],
        ),
        (
            json!({"type": "Pod", "max": {"memory": "1Gi"}}),
            json!({}),
            vec!["maximum memory usage per Pod is 1Gi.  No limit is specified"],
        ),
        (
            json!({"type": "Pod", "maxLimitRequestRatio": {"cpu": "2"}}),
            json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "300m"}}),
            vec!["cpu max limit to request ratio per Pod is 2, but provided ratio is 3.000000"],
        ),
        (
            json!({"type": "Container", "min": {"cpu": "1"}, "max": {"cpu": "2"}}),
            json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}),
            vec![],
        ),
    ];
    for (limit, resources, expected) in cases {
        let mut errors = Vec::new();
        check::pod(&limit, &pod(resources), &mut errors);
        assert_eq!(errors, expected, "{limit}");
    }
}

#[test]
fn init_containers_count_one_at_a_time_and_sidecars_all_along() {
    let limit = json!({"type": "Pod", "max": {"cpu": "3"}});
    let resources = |cpu: &str| json!({"limits": {"cpu": cpu}});
    let mut object = pod(resources("1"));
    object["spec"]["initContainers"] = json!([
        {"name": "a", "resources": resources("3")}, {"name": "b", "resources": resources("3")},
    ]);
    let judge = |object: &Value| {
        let mut errors = Vec::new();
        check::pod(&limit, object, &mut errors);
        aggregate(errors)
    };
    assert_eq!(judge(&object), None);
    object["spec"]["initContainers"][0]["restartPolicy"] = "Always".into();
    assert_eq!(judge(&object).as_deref(), Some("maximum cpu usage per Pod is 3, but limit is 6"));
}

#[test]
fn claims_are_bounded_by_what_they_ask_for() {
    let limit = json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}});
    let mut errors = Vec::new();
    check::claim(&limit, &json!({"spec": {"resources": {"requests": {"storage": "3Gi"}}}}), &mut errors);
    assert_eq!(errors, ["maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"]);
}
