//! Usage, scopes and obligations of objects, kind by kind.

use crate::{Resource, exceeded, grown, in_scope, parse, show};
use serde_json::{Value, json};

const PODS: Resource<'static> = Resource { group: "", resource: "pods" };

fn pod(resources: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
}

#[test]
fn pods_use_requests_and_limits_until_they_are_over() {
    let mut object = pod(json!({
        "requests": {"cpu": "100m", "memory": "1Gi", "example.com/gpu": "2", "hugepages-2Mi": "4Mi"},
        "limits": {"cpu": "1"},
    }));
    object["spec"]["overhead"] = json!({"cpu": "50m"});
    let used = show(&PODS.usage(&object, 0));
    let expected = "count/pods=1,cpu=150m,hugepages-2Mi=4Mi,limits.cpu=1050m,memory=1Gi,pods=1,requests.cpu=150m,\
                    requests.example.com/gpu=2,requests.hugepages-2Mi=4Mi,requests.memory=1Gi";
    assert_eq!(used, expected);
    object["status"] = json!({"phase": "Succeeded"});
    assert_eq!(show(&PODS.usage(&object, 0)), "count/pods=1");
    object["status"] = json!({"phase": "Running"});
    object["metadata"]["deletionTimestamp"] = "1970-01-01T00:01:00Z".into();
    object["metadata"]["deletionGracePeriodSeconds"] = 30.into();
    assert!(PODS.usage(&object, 60).contains_key("pods"));
    assert!(!PODS.usage(&object, 61).contains_key("pods"));
}

#[test]
fn every_container_must_name_what_is_limited() {
    let mut object = pod(json!({"requests": {"cpu": "1"}}));
    object["spec"]["initContainers"] = json!([{"name": "a"}]);
    let names = ["limits.cpu", "requests.cpu", "pods"];
    let why = PODS.check(&object, &names).unwrap_err();
    assert_eq!(why, "must specify limits.cpu for: a,c; requests.cpu for: a");
    object["spec"]["resources"] = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1"}});
    assert_eq!(PODS.check(&object, &names), Ok(()));
}

#[test]
fn services_use_node_ports_and_load_balancers() {
    let services = Resource::new("", "services");
    let cases = [
        (json!({"type": "ClusterIP"}), "0", "0"),
        (json!({"type": "NodePort", "ports": [{}, {}]}), "2", "0"),
        (json!({"type": "LoadBalancer", "ports": [{}]}), "1", "1"),
        (
            json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{}, {"nodePort": 30000}]}),
            "1",
            "1",
        ),
    ];
    for (spec, ports, balancers) in cases {
        let used = services.usage(&json!({"spec": spec}), 0);
        assert_eq!(used["services.nodeports"].to_string(), ports, "{spec}");
        assert_eq!(used["services.loadbalancers"].to_string(), balancers, "{spec}");
    }
}

#[test]
fn claims_use_storage_also_by_class() {
    let claims = Resource::new("", "persistentvolumeclaims");
    let claim = json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}},
                       "status": {"allocatedResources": {"storage": "2Gi"}}});
    let used = claims.usage(&claim, 0);
    assert_eq!(used["requests.storage"].to_string(), "2Gi");
    assert_eq!(used["fast.storageclass.storage.k8s.io/requests.storage"].to_string(), "2Gi");
    assert!(claims.is_named_by("slow.storageclass.storage.k8s.io/persistentvolumeclaims"));
    assert!(!claims.is_named_by("pods"));
}

#[test]
fn scopes_select_pods() {
    let quota = |scope: &str| json!({"spec": {"scopes": [scope]}});
    let ending = json!({"spec": {"activeDeadlineSeconds": 5, "containers": [{"name": "c"}]}});
    let busy = pod(json!({"requests": {"cpu": "1"}}));
    for (scope, of_ending, of_busy) in [
        ("Terminating", true, false),
        ("NotTerminating", false, true),
        ("BestEffort", true, false),
        ("NotBestEffort", false, true),
    ] {
        assert_eq!(in_scope(PODS, &quota(scope), &ending), of_ending, "{scope}");
        assert_eq!(in_scope(PODS, &quota(scope), &busy), of_busy, "{scope}");
    }
    let class = |operator: &str| {
        let expression = json!({"scopeName": "PriorityClass", "operator": operator, "values": ["high"]});
        json!({"spec": {"scopeSelector": {"matchExpressions": [expression]}}})
    };
    let high = json!({"spec": {"priorityClassName": "high"}});
    for (operator, matches) in [("In", true), ("NotIn", false), ("Exists", true), ("DoesNotExist", false)] {
        assert_eq!(in_scope(PODS, &class(operator), &high), matches, "{operator}");
        assert_eq!(in_scope(PODS, &class(operator), &busy), !matches, "{operator}");
    }
    assert!(!in_scope(Resource::new("", "services"), &quota("BestEffort"), &json!({})));
}

#[test]
fn growth_is_what_is_charged() {
    let (old, new) = (parse(&json!({"a": "1", "b": "2"})), parse(&json!({"a": "3", "b": "1", "c": "0"})));
    assert_eq!(show(&grown(&new, &old)), "a=2");
    assert_eq!(exceeded(&new, &parse(&json!({"a": "2", "b": "1"}))), ["a"]);
}
