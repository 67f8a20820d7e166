//! Requests one at a time: typed and dynamic objects, patches, subresources, and what is inside a pod.

use crate::{Place, config_map, eventually};
use anyhow::{Context, Result, bail, ensure};
use futures::{AsyncBufReadExt, StreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Error;
use kube::api::{
    Api, AttachParams, DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams, PostParams,
};
use kube::core::GroupVersionKind;
use kube::discovery::{Discovery, Scope, pinned_kind};
use serde_json::{Value, json};
use std::fmt::Debug;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The code of a refusal.
fn refused<T: Debug>(result: kube::Result<T>) -> Result<(u16, String)> {
    match result {
        Err(Error::Api(status)) => Ok((status.code, status.message.clone())),
        other => bail!("not refused: {other:?}"),
    }
}

pub async fn life(place: Place) -> Result<()> {
    let maps = place.maps();
    let create = PostParams::default();
    let mut made = maps.create(&create, &config_map("crud", &[("a", "1")], &[])).await?;
    let (code, message) = refused(maps.create(&create, &config_map("crud", &[], &[])).await)?;
    ensure!(code == 409 && message == "configmaps \"crud\" already exists", "{code} {message}");
    made.data.get_or_insert_default().insert("a".to_owned(), "2".to_owned());
    maps.replace("crud", &create, &made).await?;
    let (code, message) = refused(maps.replace("crud", &create, &made).await)?;
    ensure!(code == 409 && message.contains("the object has been modified"), "{code} {message}");
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps.create(&dry, &config_map("dry", &[], &[])).await?;
    ensure!(maps.get_opt("dry").await?.is_none(), "a dry run made an object");
    let (code, _) = refused(maps.create(&create, &config_map("Bad_Name", &[], &[])).await)?;
    ensure!(code == 422, "{code}");
    maps.delete("crud", &DeleteParams::default()).await?;
    ensure!(refused(maps.get("crud").await)?.0 == 404);
    Ok(())
}

pub async fn patches(place: Place) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(place.client.clone(), &place.namespace);
    let template = json!({ "metadata": { "labels": { "app": "patched" } },
        "spec": { "containers": [{ "name": "c", "image": place.image }] } });
    let body = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "patched" },
        "spec": { "replicas": 0, "selector": { "matchLabels": { "app": "patched" } }, "template": template } });
    let one = PatchParams::apply("one");
    deployments.patch("patched", &one, &Patch::Apply(&body)).await?;
    let conflict = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "spec": { "replicas": 1 } });
    let two = PatchParams::apply("two");
    let (code, message) = refused(deployments.patch("patched", &two, &Patch::Apply(&conflict)).await)?;
    let expected = "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas";
    ensure!(code == 409 && message == expected, "{code} {message}");
    let forced = deployments.patch("patched", &two.force(), &Patch::Apply(&conflict)).await?;
    ensure!(forced.spec.context("a spec")?.replicas == Some(1));

    let names = |deployment: Deployment| -> Vec<String> {
        let pod = deployment.spec.and_then(|spec| spec.template.spec).unwrap_or_default();
        pod.containers.into_iter().map(|container| container.name).collect()
    };
    let side = json!({ "spec": { "template": { "spec": { "containers": [{ "name": "side", "image": "x" }] } } } });
    let params = PatchParams::default();
    ensure!(names(deployments.patch("patched", &params, &Patch::Strategic(&side)).await?) == ["side", "c"]);
    ensure!(names(deployments.patch("patched", &params, &Patch::Merge(&side)).await?) == ["side"]);

    ensure!(deployments.get_scale("patched").await?.spec.context("a scale")?.replicas == Some(1));
    let none = json!({ "spec": { "replicas": 0 } });
    let scale = deployments.patch_scale("patched", &params, &Patch::Merge(&none)).await?;
    ensure!(scale.spec.context("a scale")?.replicas.unwrap_or_default() == 0);
    let condition = json!({ "status": { "conditions": [{ "type": "Tested", "status": "True" }] } });
    let patched = deployments.patch_status("patched", &params, &Patch::Strategic(&condition)).await?;
    let conditions = patched.status.and_then(|status| status.conditions).unwrap_or_default();
    ensure!(conditions.iter().any(|condition| condition.type_ == "Tested"), "{conditions:?}");
    deployments.delete("patched", &DeleteParams::foreground()).await?;
    let gone = || async { Ok(deployments.get_opt("patched").await?.is_none().then_some(())) };
    eventually("the deployment is gone", gone).await
}

pub async fn dynamic(place: Place) -> Result<()> {
    // One request a group: those of other clients' definitions may go between the list and the request.
    let own = ["apps", "batch", "coordination.k8s.io"];
    for discovery in [
        Discovery::new(place.client.clone()).filter(&own).run().await?,
        Discovery::new(place.client.clone()).run_aggregated().await?,
    ] {
        let group = discovery.get("apps").context("the group apps")?;
        let (resource, capabilities) = group.recommended_kind("Deployment").context("deployments")?;
        ensure!(resource.plural == "deployments" && capabilities.scope == Scope::Namespaced);
        ensure!(capabilities.supports_operation("watch"), "{capabilities:?}");
    }
    let lease = GroupVersionKind::gvk("coordination.k8s.io", "v1", "Lease");
    let (resource, _) = pinned_kind(&place.client, &lease).await?;
    let leases: Api<DynamicObject> = Api::namespaced_with(place.client.clone(), &place.namespace, &resource);
    let object = DynamicObject::new("dynamic", &resource).data(json!({ "spec": { "holderIdentity": "me" } }));
    leases.create(&PostParams::default(), &object).await?;
    let read = leases.get("dynamic").await?;
    ensure!(read.data["spec"]["holderIdentity"] == "me", "{:?}", read.data);
    let listed = leases.list(&ListParams::default().fields("metadata.name=dynamic")).await?;
    ensure!(listed.items.len() == 1);
    leases.delete("dynamic", &DeleteParams::default()).await?;
    let version = place.client.apiserver_version().await?;
    ensure!(version.major == "1" && version.minor == "36", "{version:?}");
    Ok(())
}

pub async fn entries(place: Place) -> Result<()> {
    let maps = place.maps();
    let mut entry = maps.entry("entry").await?.or_insert(|| config_map("entry", &[("n", "1")], &[]));
    entry.commit(&PostParams::default()).await?;
    entry.get_mut().data.get_or_insert_default().insert("n".to_owned(), "2".to_owned());
    entry.commit(&PostParams::default()).await?;
    let data = maps.get("entry").await?.data.unwrap_or_default();
    ensure!(data.get("n").is_some_and(|n| n == "2"), "{data:?}");
    Ok(())
}

pub async fn partial(place: Place) -> Result<()> {
    let maps = place.maps();
    for number in 0..5 {
        let map = config_map(&format!("page-{number}"), &[("n", "1")], &[("paged", "yes")]);
        maps.create(&PostParams::default(), &map).await?;
    }
    let mut params = ListParams::default().labels("paged=yes").limit(2);
    let mut names = Vec::new();
    loop {
        let page = maps.list_metadata(&params).await?;
        names.extend(page.items.iter().filter_map(|item| item.metadata.name.clone()));
        let Some(token) = page.metadata.continue_.filter(|token| !token.is_empty()) else { break };
        params = params.continue_token(&token);
    }
    ensure!(names.len() == 5, "{names:?}");
    let change = json!({ "metadata": { "annotations": { "a": "b" } } });
    let patched = maps.patch_metadata("page-0", &PatchParams::default(), &Patch::Merge(&change)).await?;
    ensure!(patched.metadata.annotations.is_some_and(|all| all.contains_key("a")));
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("paged=yes")).await?;
    let left = maps.list(&ListParams::default().labels("paged=yes")).await?;
    ensure!(left.items.is_empty(), "{} are left", left.items.len());
    Ok(())
}

fn shell(image: &str) -> Result<Pod> {
    let script = "echo ready; mkdir /tmp/w; echo page > /tmp/w/index.html; httpd -f -p 8080 -h /tmp/w";
    let container = json!({ "name": "main", "image": image, "command": ["sh", "-c", script] });
    let body: Value = json!({ "metadata": { "name": "shell" },
        "spec": { "terminationGracePeriodSeconds": 0, "containers": [container] } });
    Ok(serde_json::from_value(body)?)
}

pub async fn pod(place: Place) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(place.client.clone(), &place.namespace);
    pods.create(&PostParams::default(), &shell(&place.image)?).await?;
    let running =
        kube::runtime::wait::await_condition(pods.clone(), "shell", kube::runtime::wait::conditions::is_pod_running());
    tokio::time::timeout(crate::LIMIT, running).await.context("the pod does not run")??;

    let script = ["sh", "-c", "read x; echo got $x; echo bad >&2; exit 7"];
    let mut process = pods.exec("shell", script, &AttachParams::default().stdin(true)).await?;
    process.stdin().context("its input")?.write_all(b"typed\n").await?;
    let (mut out, mut err) = (String::new(), String::new());
    process.stdout().context("its output")?.read_to_string(&mut out).await?;
    process.stderr().context("its errors")?.read_to_string(&mut err).await?;
    let status = process.take_status().context("its status")?.await.context("a status")?;
    ensure!(out == "got typed\n" && err == "bad\n", "{out:?} {err:?}");
    let code = status.details.and_then(|details| details.causes).unwrap_or_default().pop();
    ensure!(code.is_some_and(|cause| cause.message.as_deref() == Some("7")));

    let log = pods.log_stream("shell", &LogParams { follow: true, ..LogParams::default() }).await?;
    let line = log.lines().next().await.context("a line")??;
    ensure!(line == "ready", "{line}");

    let page = || async {
        let mut forward = pods.portforward("shell", &[8080]).await?;
        let mut port = forward.take_stream(8080).context("the port")?;
        port.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        port.read_to_string(&mut answer).await?;
        Ok(answer.ends_with("page\n").then_some(()))
    };
    eventually("the page", page).await?;
    pods.evict("shell", &Default::default()).await?;
    let gone = || async { Ok(pods.get_opt("shell").await?.is_none().then_some(())) };
    eventually("the pod is gone", gone).await?;
    // What the stream of a log that is not there says.
    ensure!(pods.log_stream("shell", &LogParams::default()).await.is_err());
    Ok(())
}
