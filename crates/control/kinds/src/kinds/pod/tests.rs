//! Pods: defaults, validation, updates and the cells of tables, each as rows of small objects.

use super::*;

fn pod(spec: Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"}, "spec": spec});
    Pod.default("v1", &mut pod);
    pod
}

fn one_container(more: Value) -> Value {
    let mut container = json!({"name": "a", "image": "b"});
    for (key, value) in more.as_object().cloned().unwrap_or_default() {
        container[key] = value;
    }
    json!({"containers": [container]})
}

#[test]
fn defaults_of_a_small_pod() {
    let pod = pod(one_container(json!({"ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}}})));
    let spec = &pod["spec"];
    let container = &spec["containers"][0];
    let cases = [
        (&spec["dnsPolicy"], json!("ClusterFirst")),
        (&spec["restartPolicy"], json!("Always")),
        (&spec["terminationGracePeriodSeconds"], json!(30)),
        (&spec["enableServiceLinks"], json!(true)),
        (&spec["securityContext"], json!({})),
        (&container["imagePullPolicy"], json!("Always")),
        (&container["ports"][0]["protocol"], json!("TCP")),
        (&container["resources"]["requests"]["cpu"], json!("1")),
        (&container["terminationMessagePolicy"], json!("File")),
    ];
    for (found, expected) in cases {
        assert_eq!(*found, expected);
    }
}

#[test]
fn a_negative_grace_period_becomes_one_second() {
    for (given, kept) in [(-5, 1), (0, 0), (7, 7)] {
        let mut pod = pod(json!({"terminationGracePeriodSeconds": given, "containers": [{"name": "a", "image": "b"}]}));
        Pod.prepare_create(&mut pod);
        assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], kept);
    }
}

#[test]
fn pull_policies_follow_the_tag() {
    let policy = |image: &str| {
        let pod = pod(json!({"containers": [{"name": "a", "image": image}]}));
        pod["spec"]["containers"][0]["imagePullPolicy"].as_str().map(str::to_owned)
    };
    for (image, expected) in [
        ("b", "Always"),
        ("b:latest", "Always"),
        ("b:1", "IfNotPresent"),
        ("host:5000/b", "Always"),
        ("host:5000/b:2", "IfNotPresent"),
        ("b@sha256:00", "IfNotPresent"),
    ] {
        assert_eq!(policy(image).as_deref(), Some(expected), "{image}");
    }
}

#[test]
fn service_classes() {
    for (resources, expected) in [
        (json!({}), "BestEffort"),
        (json!({"requests": {"cpu": "1"}}), "Burstable"),
        (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
        (json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), "Burstable"),
        (
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}),
            "Guaranteed",
        ),
        (json!({"limits": {"example.com/gpu": "1"}}), "BestEffort"),
    ] {
        let pod = pod(one_container(json!({"resources": resources})));
        assert_eq!(qos::class(&pod["spec"]), expected, "{resources}");
    }
}

fn errors(spec: Value) -> Vec<String> {
    Pod.validate(&pod(spec)).iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_wrong_with_pods() {
    let cases = [
        (one_container(json!({})), vec![]),
        (json!({"containers": []}), vec!["spec.containers: Required value"]),
        (one_container(json!({"image": ""})), vec!["spec.containers[0].image: Required value"]),
        (
            one_container(json!({"ports": [{"containerPort": 70000}]})),
            vec![
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ],
        ),
        (
            one_container(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})),
            vec!["spec.containers[0].volumeMounts[0].name: Not found: \"v\""],
        ),
        (
            one_container(json!({"livenessProbe": {"httpGet": {"port": 80}, "tcpSocket": {"port": 80}}})),
            vec!["spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"],
        ),
        (
            one_container(json!({"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}})),
            vec![
                "spec.containers[0].resources.requests: Invalid value: \"2Gi\": must be less than or equal to memory limit \
                 of 1Gi",
            ],
        ),
        (
            json!({"containers": [{"name": "a", "image": "b"}], "volumes": [{"name": "h", "hostPath": {"path": ""}}]}),
            vec!["spec.volumes[0].hostPath.path: Required value"],
        ),
    ];
    for (spec, expected) in cases {
        assert_eq!(errors(spec.clone()), expected, "{spec}");
    }
}

#[test]
fn updates_change_little() {
    let old = pod(one_container(json!({})));
    let mut image = old.clone();
    image["spec"]["containers"][0]["image"] = json!("c");
    assert!(Pod.validate_update(&image, &old).is_empty());

    let mut command = old.clone();
    command["spec"]["containers"][0]["command"] = json!(["x"]);
    let found = Pod.validate_update(&command, &old);
    assert_eq!(found.len(), 1);
    assert!(found[0].to_string().starts_with("spec: Forbidden: pod updates may not change fields other than"));

    let mut gated = old.clone();
    gated["spec"]["schedulingGates"] = json!([{"name": "g"}]);
    let found: Vec<_> = Pod.validate_update(&gated, &old).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        ["spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'g'"]
    );
}

#[test]
fn deletion_waits_only_for_pods_on_nodes() {
    let mut pod = pod(one_container(json!({})));
    assert_eq!(Pod.graceful_delete(&pod, None), Some(0));
    pod["spec"]["nodeName"] = json!("node");
    for (requested, expected) in [(None, 30), (Some(5), 5), (Some(0), 0), (Some(-1), 1)] {
        assert_eq!(Pod.graceful_delete(&pod, requested), Some(expected));
    }
    pod["status"] = json!({"phase": "Succeeded"});
    assert_eq!(Pod.graceful_delete(&pod, None), Some(0));
}

#[test]
fn the_status_cell_tells_what_containers_do() {
    let running = json!({"name": "a", "ready": true, "state": {"running": {}}});
    let waiting = |reason: &str| json!({"name": "a", "restartCount": 3, "state": {"waiting": {"reason": reason}}});
    let ended = |reason: &str| json!({"name": "a", "state": {"terminated": {"exitCode": 1, "reason": reason}}});
    let cases = [
        (json!({"phase": "Pending"}), ["0/1", "Pending", "0"]),
        (json!({"phase": "Running", "containerStatuses": [running]}), ["1/1", "Running", "0"]),
        (
            json!({"phase": "Running", "containerStatuses": [waiting("CrashLoopBackOff")]}),
            ["0/1", "CrashLoopBackOff", "3"],
        ),
        (json!({"phase": "Succeeded", "containerStatuses": [ended("Completed")]}), ["0/1", "Completed", "0"]),
        (json!({"phase": "Failed", "containerStatuses": [ended("")]}), ["0/1", "ExitCode:1", "0"]),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
            ["0/1", "Init:0/1", "0"],
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [waiting("CrashLoopBackOff")]}),
            ["0/1", "Init:CrashLoopBackOff", "3"],
        ),
        (json!({"phase": "Failed", "reason": "Evicted"}), ["0/1", "Evicted", "0"]),
    ];
    for (status, expected) in cases {
        let object = json!({
            "metadata": {"name": "p"}, "status": status,
            "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]},
        });
        let cells = Pod.cells(&object, Timestamp::UNIX_EPOCH);
        assert_eq!(cells[1..4], expected.map(Value::from), "{status}");
    }
}

#[test]
fn a_deleted_pod_is_terminating_and_restarts_have_an_age() {
    let object = json!({
        "metadata": {"name": "p", "deletionTimestamp": "1970-01-01T00:00:00Z"}, "spec": {"containers": [{"name": "a"}]},
        "status": {"phase": "Running", "containerStatuses": [{
            "name": "a", "ready": true, "restartCount": 2, "state": {"running": {}},
            "lastState": {"terminated": {"finishedAt": "1970-01-01T00:00:10Z"}},
        }]},
    });
    let cells = Pod.cells(&object, Timestamp::new(70, 0).expect("a time"));
    assert_eq!(cells[1..4], ["1/1", "Terminating", "2 (60s ago)"].map(Value::from));
}
