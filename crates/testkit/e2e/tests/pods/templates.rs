//! The lives of objects that have no controller of their own: templates of pods, settings, leases, classes of runtimes,
//! claims of devices and nodes. All go the same round.

use crate::api::{create, delete, get, history, items, replace, text, update};
use crate::{SOON, Test, Three};
use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Space, until};
use serde_json::{Value, json};

pub const TESTS: &[Test] = &[
    ("templates of pods live their lives", pod_templates),
    ("configuration and secrets live their lives", settings),
    ("leases live their lives", leases),
    ("classes of runtimes live their lives", runtime_classes),
    ("claims of devices live their lives", claims),
    ("what devices there are is told", devices),
    ("a node lives its life", nodes),
];

/// A kind of thing, and what is done with one.
struct Round {
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    namespaced: bool,
    /// What an object has besides its metadata.
    content: Value,
    /// Where something is changed, and what is put there.
    change: (&'static str, Value),
    /// A merge patch of the status, where there is one.
    status: Option<Value>,
}

impl Round {
    fn collection(&self, space: &Space<'_>) -> String {
        let namespace = if self.namespaced { format!("namespaces/{}/", space.name) } else { String::new() };
        format!("{}/{namespace}{}", self.root(), self.resource)
    }

    fn root(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        }
    }

    /// How kubectl calls one.
    fn name(&self, object: &str) -> String {
        let dot = if self.group.is_empty() { "" } else { "." };
        let version = if self.group.is_empty() { String::new() } else { format!("{}.", self.version) };
        format!("{}{dot}{version}{}/{object}", self.resource, self.group)
    }

    fn object(&self, name: &str, label: &str) -> Value {
        let mut object = self.content.clone();
        object["metadata"] = json!({"name": name, "labels": {"round": label}});
        object
    }

    /// Created, listed, watched, patched, put, deleted, and deleted together.
    fn go(&self, space: &Space<'_>) -> Result<()> {
        self.discovered(space)?;
        let (collection, label) = (self.collection(space), space.name.as_str());
        let names = [1, 2, 3].map(|number| format!("{label}-{number}"));
        let before = text(&get(space, &collection)?["metadata"]["resourceVersion"]);
        let mut made = Vec::new();
        for name in &names {
            made.push(create(space, &collection, &self.object(name, label))?);
        }
        let again = self.object(&names[0], label).to_string();
        let again = space.refused(&["create", "--raw", &collection, "-f", "-"], &again)?;
        ensure!(again.contains("already exists"), "{again}");
        let one = format!("{collection}/{}", names[0]);
        ensure!(get(space, &one)?["metadata"]["uid"] == made[0]["metadata"]["uid"]);
        self.listed(space, 3)?;
        self.changed(space, &one, &names[0])?;
        let events = history(space, &collection, &format!("round%3D{label}"), &before)?;
        self.told(&events, &names)?;
        delete(space, &one)?;
        self.gone(space, &one)?;
        self.listed(space, 2)?;
        delete(space, &format!("{collection}?labelSelector=round%3D{label}"))?;
        until("all are gone", SOON, || Ok(self.listed(space, 0).ok()))
    }

    fn discovered(&self, space: &Space<'_>) -> Result<()> {
        if !self.group.is_empty() {
            let groups = get(space, "/apis")?.to_string();
            ensure!(groups.contains(&format!("\"{}/{}\"", self.group, self.version)), "{groups}");
            get(space, &format!("/apis/{}", self.group))?;
        }
        let resources = get(space, &self.root())?;
        let all = resources["resources"].as_array().context("resources")?;
        let known = all.iter().find(|resource| resource["name"] == self.resource).context("the resource")?;
        for verb in ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"] {
            ensure!(known["verbs"].to_string().contains(&format!("\"{verb}\"")), "no {verb}: {known}");
        }
        Ok(())
    }

    /// So many are in the list of the namespace, and in that of all namespaces.
    fn listed(&self, space: &Space<'_>, expected: usize) -> Result<()> {
        for collection in [self.collection(space), format!("{}/{}", self.root(), self.resource)] {
            let list = get(space, &format!("{collection}?labelSelector=round%3D{}", space.name))?;
            ensure!(items(&list).len() == expected, "{} instead of {expected} in {collection}", items(&list).len());
        }
        Ok(())
    }

    fn changed(&self, space: &Space<'_>, path: &str, name: &str) -> Result<()> {
        let patch = json!({"metadata": {"annotations": {"patched": "true"}}}).to_string();
        space.ok(&["patch", &self.name(name), "--type=merge", "-p", &patch])?;
        let (pointer, value) = &self.change;
        let updated = update(space, path, |object| {
            object["metadata"]["annotations"]["updated"] = "true".into();
            let (parent, field) = pointer.rsplit_once('/').unwrap_or_default();
            if let Some(parent) = object.pointer_mut(parent) {
                parent[field] = value.clone();
            }
        })?;
        let annotations = &updated["metadata"]["annotations"];
        ensure!(annotations["patched"] == "true" && annotations["updated"] == "true", "{updated}");
        ensure!(updated.pointer(pointer) == Some(value), "{pointer}: {updated}");
        let mut stale = updated.clone();
        stale["metadata"]["resourceVersion"] = "1".into();
        let stale = space.refused(&["replace", "--raw", path, "-f", "-"], &stale.to_string())?;
        ensure!(stale.contains("the object has been modified"), "{stale}");
        let Some(status) = &self.status else { return Ok(()) };
        space.ok(&["patch", &self.name(name), "--subresource=status", "--type=merge", "-p", &status.to_string()])?;
        let seen = get(space, &format!("{path}/status"))?;
        for (field, value) in status["status"].as_object().into_iter().flatten() {
            ensure!(seen["status"][field] == *value, "{field}: {}", seen["status"]);
        }
        update(space, &format!("{path}/status"), |object| {
            object["metadata"]["annotations"]["status"] = "true".into();
        })
        .map(drop)
    }

    /// A watch tells of all that were made, and of the patch before the update.
    fn told(&self, events: &[Value], names: &[String]) -> Result<()> {
        for name in names {
            let added =
                |event: &&Value| event["type"] == "ADDED" && event["object"]["metadata"]["name"] == name.as_str();
            ensure!(events.iter().filter(added).count() == 1, "{name}: {events:?}");
        }
        let marked = |mark: &str| {
            let has = |event: &Value| {
                event["type"] == "MODIFIED" && event["object"]["metadata"]["annotations"][mark] == "true"
            };
            events.iter().position(has).with_context(|| format!("no change {mark}: {events:?}"))
        };
        ensure!(marked("patched")? < marked("updated")?, "{events:?}");
        Ok(())
    }

    fn gone(&self, space: &Space<'_>, path: &str) -> Result<()> {
        until("it is gone", SOON, || {
            let answer = space.run(&["get", "--raw", path])?;
            Ok((!answer.status.success() && answer.stderr.contains("NotFound")).then_some(()))
        })
    }
}

fn core(resource: &'static str, content: Value, change: (&'static str, Value)) -> Round {
    Round { group: "", version: "v1", resource, namespaced: true, content, change, status: None }
}

fn devices_of(resource: &'static str, namespaced: bool, content: Value, change: (&'static str, Value)) -> Round {
    Round { group: "resource.k8s.io", version: "v1", resource, namespaced, content, change, status: None }
}

fn pod_templates(three: &Three) -> Result<()> {
    let space = three.space("templates")?;
    let spec = json!({"containers": [{"name": "c", "image": BUSYBOX}]});
    let content = json!({"template": {"metadata": {"labels": {"a": "b"}}, "spec": spec}});
    let round = core("podtemplates", content, ("/template/metadata/labels/a", json!("c")));
    round.go(&space)?;
    // What is put in the place of one is all of it.
    let path = round.collection(&space);
    create(&space, &path, &round.object("whole", "whole"))?;
    let other =
        json!({"metadata": {"name": "whole"}, "template": {"spec": {"containers": [{"name": "d", "image": "i"}]}}});
    replace(&space, &format!("{path}/whole"), &other)?;
    let seen = get(&space, &format!("{path}/whole"))?;
    ensure!(seen["metadata"]["labels"].is_null() && seen["template"]["metadata"]["labels"].is_null(), "{seen}");
    let containers = &seen["template"]["spec"]["containers"];
    ensure!(containers[0]["name"] == "d" && containers.as_array().is_some_and(|all| all.len() == 1), "{seen}");
    Ok(())
}

fn settings(three: &Three) -> Result<()> {
    let space = three.space("settings")?;
    core("configmaps", json!({"data": {"a": "b"}}), ("/data/a", json!("c"))).go(&space)?;
    let secret = json!({"type": "Opaque", "data": {"key": "dmFsdWU="}});
    core("secrets", secret, ("/data/key", json!("dmFsdWUx"))).go(&space)
}

fn leases(three: &Three) -> Result<()> {
    let space = three.space("leases")?;
    let time = "2026-01-01T00:00:00.000000Z";
    let spec = json!({"holderIdentity": "holder", "leaseDurationSeconds": 30, "acquireTime": time,
        "renewTime": time, "leaseTransitions": 0});
    let round = Round {
        group: "coordination.k8s.io",
        version: "v1",
        resource: "leases",
        namespaced: true,
        content: json!({"spec": spec}),
        change: ("/spec/holderIdentity", json!("other")),
        status: None,
    };
    round.go(&space)?;
    // That of a node is held by the node, and renewed.
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-2";
    let lease = get(&space, path)?;
    ensure!(lease["spec"]["holderIdentity"] == "node-2", "{lease}");
    ensure!(lease["metadata"]["ownerReferences"][0]["kind"] == "Node", "{lease}");
    until("the lease is renewed", SOON, || {
        Ok((get(&space, path)?["spec"]["renewTime"] != lease["spec"]["renewTime"]).then_some(()))
    })
}

fn runtime_classes(three: &Three) -> Result<()> {
    let space = three.space("classes")?;
    let round = Round {
        group: "node.k8s.io",
        version: "v1",
        resource: "runtimeclasses",
        namespaced: false,
        content: json!({"handler": "nobody"}),
        change: ("/overhead", json!({"podFixed": {"cpu": "10m"}})),
        status: None,
    };
    round.go(&space)
}

fn claims(three: &Three) -> Result<()> {
    let space = three.space("claims")?;
    let spec = json!({"devices": {"requests": [{"name": "one", "exactly": {"deviceClassName": "none"}}]}});
    let label = ("/metadata/labels/more", json!("yes"));
    let device = json!({"driver": "test.example.com", "pool": "pool", "device": "device"});
    let mut claim = devices_of("resourceclaims", true, json!({"spec": spec}), label.clone());
    let result =
        json!({"request": "one", "driver": device["driver"], "pool": device["pool"], "device": device["device"]});
    claim.status = Some(json!({"status": {"allocation": {"devices": {"results": [result]}}}}));
    claim.go(&space)?;
    devices_of("resourceclaimtemplates", true, json!({"spec": {"spec": spec}}), label).go(&space)
}

fn devices(three: &Three) -> Result<()> {
    let space = three.space("devices")?;
    let class = json!({"spec": {"selectors": [{"cel": {"expression": "device.driver == 'a.example.com'"}}]}});
    let expression = json!("device.driver == 'b.example.com'");
    devices_of("deviceclasses", false, class, ("/spec/selectors/0/cel/expression", expression)).go(&space)?;
    let pool = json!({"name": space.name, "generation": 1, "resourceSliceCount": 3});
    let spec = json!({"driver": "a.example.com", "pool": pool, "nodeName": "nowhere", "devices": [{"name": "d"}]});
    let more = ("/spec/devices", json!([{"name": "d"}, {"name": "e"}]));
    devices_of("resourceslices", false, json!({"spec": spec}), more).go(&space)
}

fn nodes(three: &Three) -> Result<()> {
    let space = three.space("nodes")?;
    let mut round = core("nodes", json!({"spec": {"unschedulable": true}}), ("/metadata/labels/more", json!("yes")));
    round.namespaced = false;
    round.status = Some(json!({"status": {"capacity": {"example.com/thing": "3"}}}));
    round.go(&space)
}
