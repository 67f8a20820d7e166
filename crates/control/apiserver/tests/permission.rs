//! Whether they may: webhooks, nodes, acting as others, and giving away rights.

mod support;

use http::{Method, StatusCode};
use pintle_apiserver::User;
use pintle_auth::AuthSettings;
use pintle_auth::authorization::configuration::AuthorizationSettings;
use serde_json::{Value, json};
use std::sync::Arc;
use support::outside::Outside;
use support::{Cluster, Reply, request};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const PODS: &str = "/api/v1/namespaces/default/pods";

async fn get(cluster: &Cluster, user: &User, path: &str) -> Reply {
    cluster.send(user.clone(), request(Method::GET, path, Value::Null)).await
}

/// Waits until a read is answered so: roles and the like are followed by tasks, whose turns come meanwhile.
async fn until(cluster: &Cluster, user: &User, path: &str, code: u16) {
    for _ in 0..2000 {
        if get(cluster, user, path).await.code.as_u16() == code {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{} never got {code} for {path}: {:?}", user.name, get(cluster, user, path).await);
}

/// Gives a user a cluster role with these rules, and waits until it counts.
async fn grant(cluster: &Cluster, user: &str, rules: Value) {
    let mut rules = rules.as_array().unwrap().clone();
    rules.push(json!({"verbs": ["get"], "nonResourceURLs": [format!("/granted/{user}")]}));
    cluster.create(&format!("{RBAC}/clusterroles"), json!({"metadata": {"name": user}, "rules": rules})).await;
    let group = "rbac.authorization.k8s.io";
    let binding = json!({"metadata": {"name": user}, "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": user},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}]});
    cluster.create(&format!("{RBAC}/clusterrolebindings"), binding).await;
    until(cluster, &User::new(user, &[]), &format!("/granted/{user}"), 404).await;
}

/// A webhook that says yes to jane, no to joe, leaves the rest to others, and fails for kim.
async fn webhook() -> Outside {
    Outside::serve(|_, review| match review["spec"]["user"].as_str().unwrap() {
        "jane" => (200, json!({"status": {"allowed": true, "reason": "known"}})),
        "joe" => (200, json!({"status": {"allowed": false, "denied": true, "reason": "banned"}})),
        "kim" => (403, json!({})),
        _ => (200, json!({"status": {"allowed": false, "reason": "unknown"}})),
    })
    .await
}

async fn cluster_with(webhook: &Outside, failure_policy: &str, conditions: &str) -> Cluster {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n- type: Webhook\n  \
         name: w\n  webhook:\n    timeout: 10s\n    subjectAccessReviewVersion: v1\n    \
         matchConditionSubjectAccessReviewVersion: v1\n    failurePolicy: {failure_policy}\n    \
         connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {}}}\n    matchConditions: {conditions}\n\
         - {{type: RBAC, name: r}}\n",
        webhook.kubeconfig().display()
    );
    let file = Some(webhook.write("authorization.yaml", &text));
    let authorization = AuthorizationSettings { file, ..AuthorizationSettings::default() };
    let settings = AuthSettings { authorization, ..AuthSettings::default() };
    Cluster::with(|config, _| config.auth = Some(Arc::new(settings.build(config.basics()).unwrap()))).await
}

#[tokio::test]
async fn a_webhook_decides_or_leaves_it_to_others() {
    let webhook = webhook().await;
    let cluster = cluster_with(&webhook, "NoOpinion", "[]").await;
    let named = |name: &str| User::new(name, &["dev"]);
    for _ in 0..2 {
        assert_eq!(get(&cluster, &named("jane"), PODS).await.code, StatusCode::OK);
    }
    let asked = webhook.asked.lock().clone();
    assert_eq!(asked.len(), 1, "the answer is kept");
    assert_eq!(asked[0]["apiVersion"], "authorization.k8s.io/v1");
    assert_eq!(
        asked[0]["spec"],
        json!({"user": "jane", "groups": ["dev", "system:authenticated"], "resourceAttributes":
            {"namespace": "default", "verb": "list", "version": "v1", "resource": "pods"}})
    );
    let banned = get(&cluster, &named("joe"), PODS).await;
    assert!(banned.code == StatusCode::FORBIDDEN && banned.message().ends_with(": banned"), "{banned:?}");
    let unknown = get(&cluster, &named("kim"), PODS).await;
    assert_eq!(unknown.code, StatusCode::FORBIDDEN);
    grant(&cluster, "kim", json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}])).await;
    assert_eq!(get(&cluster, &named("kim"), PODS).await.code, StatusCode::OK, "a failure is no opinion");
    let rules = json!({"spec": {"namespace": "default"}});
    let rules = cluster
        .send(named("kim"), request(Method::POST, "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", rules));
    let status = rules.await.json()["status"].clone();
    assert_eq!(
        (&status["incomplete"], &status["evaluationError"]),
        (&json!(true), &json!("webhook authorizer does not support user rule resolution"))
    );
}

#[tokio::test]
async fn a_webhook_is_asked_only_where_its_conditions_hold_and_may_close_the_door_when_it_fails() {
    let webhook = webhook().await;
    let conditions = "[{expression: 'has(request.resourceAttributes)'}, \
                      {expression: 'request.resourceAttributes.namespace == \"default\"'}]";
    let cluster = cluster_with(&webhook, "Deny", conditions).await;
    let (jane, kim) = (User::new("jane", &[]), User::new("kim", &[]));
    assert_eq!(get(&cluster, &jane, PODS).await.code, StatusCode::OK);
    assert_eq!(get(&cluster, &jane, "/api/v1/namespaces/other/pods").await.code, StatusCode::FORBIDDEN);
    assert_eq!(get(&cluster, &jane, "/metrics").await.code, StatusCode::FORBIDDEN);
    assert_eq!(webhook.asked.lock().len(), 1);
    grant(&cluster, "kim", json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}])).await;
    assert_eq!(get(&cluster, &kim, PODS).await.code, StatusCode::FORBIDDEN, "RBAC is not asked any more");
    assert_eq!(get(&cluster, &kim, "/api/v1/namespaces/other/pods").await.code, StatusCode::OK);
}

/// Asks as somebody else; headers as `name=value`, separated by blanks.
async fn acting(cluster: &Cluster, asker: &str, headers: &str) -> Reply {
    let mut asked = request(Method::GET, PODS, Value::Null);
    for header in headers.split_whitespace() {
        let (name, value) = header.split_once('=').unwrap();
        let name: http::HeaderName = format!("impersonate-{name}").parse().unwrap();
        asked.headers_mut().append(name, value.parse().unwrap());
    }
    cluster.send(User::new(asker, &[]), asked).await
}

#[tokio::test]
async fn acting_as_others_needs_the_right_to_each_part_of_them() {
    let cluster = Cluster::new().await;
    let core = |resource: &str, names: &[&str]| json!({"verbs": ["impersonate"], "apiGroups": [""], "resources": [resource], "resourceNames": names});
    let own = |resource: &str, names: &[&str]| {
        json!({"verbs": ["impersonate"], "apiGroups": ["authentication.k8s.io"], "resources": [resource],
            "resourceNames": names})
    };
    let list = json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]);
    grant(&cluster, "target", list.clone()).await;
    grant(&cluster, "system:serviceaccount:default:bot", list).await;
    let rules = json!([
        core("users", &["target"]),
        core("groups", &["dev"]),
        core("serviceaccounts", &["bot"]),
        own("uids", &["7"]),
        own("userextras/scopes", &["a"])
    ]);
    grant(&cluster, "asker", rules).await;
    for good in [
        "user=target",
        "user=target group=dev",
        "user=target uid=7",
        "user=target extra-scopes=a",
        "user=target group=dev uid=7 extra-Scopes=a",
        "user=system:serviceaccount:default:bot",
    ] {
        let reply = acting(&cluster, "asker", good).await;
        assert_eq!(reply.code, StatusCode::OK, "{good}: {reply:?}");
    }
    // The first way to be allowed that was tried is what a refusal tells of.
    let first = |mode: &str| {
        format!(
            "pods is forbidden: User \"asker\" cannot impersonate-on:{mode}:list resource \"pods\" in API group \"\" in the \
                 namespace \"default\""
        )
    };
    for (bad, mode) in [
        ("user=other", "user-info"),
        ("user=target group=ops", "user-info"),
        ("user=target group=dev group=system:masters", "user-info"),
        ("user=target uid=8", "user-info"),
        ("user=target extra-scopes=b", "user-info"),
        ("user=target extra-other=a", "user-info"),
        ("user=system:serviceaccount:default:other", "serviceaccount"),
        ("user=system:node:n1", "arbitrary-node"),
    ] {
        let refused = acting(&cluster, "asker", bad).await;
        assert_eq!((refused.code, refused.message()), (StatusCode::FORBIDDEN, first(mode)), "{bad}");
    }
    let nameless = acting(&cluster, "asker", "group=dev").await;
    assert_eq!(
        (nameless.code, nameless.message()),
        (
            StatusCode::BAD_REQUEST,
            "requested &user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"dev\"}, \
         Extra:map[string][]string(nil)} without impersonating a user name"
                .to_owned()
        )
    );
}

#[tokio::test]
async fn acting_as_others_may_be_limited_to_some_verbs() {
    let cluster = Cluster::new().await;
    let list = json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]);
    grant(&cluster, "target", list).await;
    let on = json!({"verbs": ["impersonate-on:user-info:list"], "apiGroups": [""], "resources": ["pods"]});
    let user = json!({"verbs": ["impersonate:user-info"], "apiGroups": ["authentication.k8s.io"], "resources": ["users"],
        "resourceNames": ["target"]});
    let groups =
        json!({"verbs": ["impersonate:user-info"], "apiGroups": ["authentication.k8s.io"], "resources": ["groups"]});
    grant(&cluster, "limited", json!([on, user, groups])).await;
    assert_eq!(acting(&cluster, "limited", "user=target group=dev").await.code, StatusCode::OK);
    let refused = |message: &str| format!("{message} is forbidden");
    for (headers, expected) in [
        ("user=other", refused("users.authentication.k8s.io \"other\"")),
        ("user=target uid=7", refused("uids.authentication.k8s.io \"7\"")),
        ("user=target group=system:masters", refused("groups.authentication.k8s.io \"system:masters\"")),
        ("user=target extra-scopes=a", refused("userextras.authentication.k8s.io \"a\"")),
    ] {
        let reply = acting(&cluster, "limited", headers).await;
        assert!(reply.code == StatusCode::FORBIDDEN && reply.message().starts_with(&expected), "{headers}: {reply:?}");
    }
}

#[tokio::test]
async fn nobody_gives_away_what_they_do_not_have() {
    let cluster = Cluster::new().await;
    let roles = format!("{RBAC}/namespaces/default/roles");
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    let rules = json!([
        {"verbs": ["create", "update", "get"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"]},
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
        {"verbs": ["bind"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "resourceNames": ["edit"]},
    ]);
    grant(&cluster, "maker", rules).await;
    let maker = User::new("maker", &[]);
    let post = async |path: &str, body: Value| cluster.send(maker.clone(), request(Method::POST, path, body)).await;
    let role = |name: &str, verbs: &[&str]| json!({"metadata": {"name": name}, "rules": [{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}]});
    assert_eq!(post(&roles, role("fine", &["get"])).await.code, StatusCode::CREATED);
    let refused = post(&roles, role("much", &["get", "delete"])).await;
    assert_eq!(
        (refused.code, refused.message()),
        (StatusCode::FORBIDDEN, "roles.rbac.authorization.k8s.io \"much\" is forbidden: user \"maker\" \
         (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], \
         Resources:[\"pods\"], Verbs:[\"delete\"]}".to_owned())
    );
    let binding = |name: &str, role: &str| {
        let group = "rbac.authorization.k8s.io";
        json!({"metadata": {"name": name}, "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": group, "kind": "User", "name": "friend"}]})
    };
    assert_eq!(post(&bindings, binding("edit", "edit")).await.code, StatusCode::CREATED, "it may bind this one");
    let refused = post(&bindings, binding("admin", "cluster-admin")).await;
    assert!(
        refused.code == StatusCode::FORBIDDEN
            && refused.message().ends_with(
                "{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}\n{NonResourceURLs:[\"*\"], Verbs:[\"*\"]}"
            ),
        "{refused:?}"
    );
    let missing = post(&bindings, binding("none", "none")).await;
    assert_eq!(missing.message(), "clusterroles.rbac.authorization.k8s.io \"none\" not found");
    assert_eq!(cluster.admin(Method::POST, &roles, role("much", &["delete"])).await.code, StatusCode::CREATED);
}

fn node() -> User {
    User::new("system:node:n1", &["system:nodes"])
}

#[tokio::test]
async fn a_node_reads_what_its_pods_use_and_no_longer_than_they_do() {
    let cluster = Cluster::new().await;
    cluster.default_account("default").await;
    for kind in ["secrets", "configmaps"] {
        for name in ["used", "unused"] {
            cluster.create(&format!("/api/v1/namespaces/default/{kind}"), json!({"metadata": {"name": name}})).await;
        }
    }
    let claim = json!({"metadata": {"name": "claim"}, "spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "pv",
        "resources": {"requests": {"storage": "1Gi"}}}});
    cluster.create("/api/v1/namespaces/default/persistentvolumeclaims", claim).await;
    let volume = json!({"metadata": {"name": "pv"}, "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
        "csi": {"driver": "d.io", "volumeHandle": "h"}, "claimRef": {"namespace": "default", "name": "claim"}}});
    cluster.create("/api/v1/persistentvolumes", volume).await;
    let attachment = |name: &str, node: &str| json!({"metadata": {"name": name}, "spec": {"attacher": "d.io", "nodeName": node, "source": {"persistentVolumeName": "pv"}}});
    for (name, of) in [("ours", "n1"), ("theirs", "n2")] {
        cluster.create("/apis/storage.k8s.io/v1/volumeattachments", attachment(name, of)).await;
    }
    let base = "/api/v1/namespaces/default";
    let secret = format!("{base}/secrets/used");
    let refused = get(&cluster, &node(), &secret).await;
    assert_eq!(
        (refused.code, refused.message()),
        (
            StatusCode::FORBIDDEN,
            "secrets \"used\" is forbidden: User \"system:node:n1\" cannot get resource \"secrets\" in API \
         group \"\" in the namespace \"default\": no relationship found between node 'n1' and this object"
                .to_owned()
        )
    );
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i",
        "envFrom": [{"configMapRef": {"name": "used"}}]}], "volumes": [{"name": "s", "secret": {"secretName": "used"}},
        {"name": "v", "persistentVolumeClaim": {"claimName": "claim"}}]}});
    cluster.create(PODS, pod).await;
    let allowed = [
        secret.clone(),
        format!("{base}/configmaps/used"),
        format!("{base}/persistentvolumeclaims/claim"),
        "/api/v1/persistentvolumes/pv".to_owned(),
        "/apis/storage.k8s.io/v1/volumeattachments/ours".to_owned(),
        format!("{base}/pods/p"),
        "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1".to_owned(),
        "/api/v1/services".to_owned(),
    ];
    for path in &allowed {
        until(&cluster, &node(), path, 200).await;
    }
    let other = User::new("system:node:n2", &["system:nodes"]);
    for path in [&allowed[0], &allowed[3], &allowed[4], &allowed[5], &allowed[6]] {
        assert_eq!(get(&cluster, &other, path).await.code, StatusCode::FORBIDDEN, "{path}");
    }
    for path in [
        format!("{base}/secrets/unused"),
        format!("{base}/secrets"),
        format!("{base}/configmaps/unused"),
        "/apis/storage.k8s.io/v1/volumeattachments/theirs".to_owned(),
        "/api/v1/pods".to_owned(),
        "/api/v1/nodes".to_owned(),
    ] {
        assert_eq!(get(&cluster, &node(), &path).await.code, StatusCode::FORBIDDEN, "{path}");
    }
    let deleted = cluster.admin(Method::DELETE, &format!("{base}/pods/p"), json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(deleted.code, StatusCode::OK);
    for path in &allowed[..4] {
        until(&cluster, &node(), path, 403).await;
    }
    until(&cluster, &node(), &allowed[4], 200).await;
}

#[tokio::test]
async fn a_node_gets_tokens_for_its_own_pods_only() {
    let cluster = Cluster::new().await;
    cluster.default_account("default").await;
    for (name, of) in [("mine", "n1"), ("theirs", "n2")] {
        let pod =
            json!({"metadata": {"name": name}, "spec": {"nodeName": of, "containers": [{"name": "c", "image": "i"}]}});
        cluster.create(PODS, pod).await;
    }
    let uid = async |name: &str| cluster.get(&format!("{PODS}/{name}")).await.json()["metadata"]["uid"].clone();
    let (mine, theirs) = (uid("mine").await, uid("theirs").await);
    until(&cluster, &node(), &format!("{PODS}/mine"), 200).await;
    let ask = async |reference: Value| {
        let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
        cluster.send(node(), request(Method::POST, path, json!({"spec": {"boundObjectRef": reference}}))).await
    };
    let pod = |name: &str, uid: &Value| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid});
    assert_eq!(ask(pod("mine", &mine)).await.code, StatusCode::CREATED);
    for (reference, why) in [
        (Value::Null, "node requested token not bound to a pod"),
        (pod("mine", &json!("")), "node requested token with a pod binding without a uid"),
        (pod("mine", &theirs), "does not match the UID in record"),
        (pod("theirs", &theirs), "node requested token bound to a pod scheduled on a different node"),
    ] {
        let refused = ask(reference).await;
        assert!(refused.code == StatusCode::FORBIDDEN && refused.message().contains(why), "{why}: {refused:?}");
    }
}
