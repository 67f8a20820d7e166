//! A controller of a kind of its own, with a finalizer and objects that it owns; and leadership by a lease.

use crate::{LIMIT, Place, eventually};
use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event as Note, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{Error as FinalizerError, Event};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher;
use kube::{Client, CustomResource, CustomResourceExt, Resource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

const FINALIZER: &str = "kube.example.com/kept";

#[derive(CustomResource, Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[kube(group = "kube.example.com", version = "v1", kind = "Document", namespaced, status = "DocumentStatus")]
#[kube(printcolumn = r#"{"name": "Title", "type": "string", "jsonPath": ".spec.title"}"#)]
struct DocumentSpec {
    title: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
struct DocumentStatus {
    printed: bool,
}

/// Keeps a ConfigMap for each document, which goes with it.
async fn reconcile(document: Arc<Document>, client: Arc<Client>) -> Result<Action, Box<FinalizerError<kube::Error>>> {
    let namespace = document.namespace().unwrap_or_default();
    let documents: Api<Document> = Api::namespaced((*client).clone(), &namespace);
    let client = (*client).clone();
    let done = kube::runtime::finalizer(&documents, FINALIZER, document, |event| async {
        match event {
            Event::Apply(document) => print(&client, &document).await,
            Event::Cleanup(document) => note(&client, &document, "Forgotten").await,
        }
    });
    done.await.map_err(Box::new)
}

async fn print(client: &Client, document: &Document) -> Result<Action, kube::Error> {
    let namespace = document.namespace().unwrap_or_default();
    let name = document.name_any();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let owner = document.controller_owner_ref(&());
    let body = json!({ "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": name, "ownerReferences": [owner] }, "data": { "title": document.spec.title } });
    maps.patch(&name, &PatchParams::apply("printer").force(), &Patch::Apply(&body)).await?;
    let documents: Api<Document> = Api::namespaced(client.clone(), &namespace);
    let status = json!({ "status": { "printed": true } });
    documents.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await?;
    Ok(Action::await_change())
}

async fn note(client: &Client, document: &Document, reason: &str) -> Result<Action, kube::Error> {
    let reporter = Reporter { controller: "printer".to_owned(), instance: None };
    let note = Note {
        type_: EventType::Normal,
        reason: reason.to_owned(),
        note: Some(document.spec.title.clone()),
        action: "Clean".to_owned(),
        secondary: None,
    };
    Recorder::new(client.clone(), reporter).publish(&note, &document.object_ref(&())).await?;
    Ok(Action::await_change())
}

pub async fn finalized(place: Place) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(place.client.clone());
    definitions.create(&PostParams::default(), &Document::crd()).await?;
    let established = await_condition(definitions.clone(), Document::crd_name(), conditions::is_crd_established());
    tokio::time::timeout(LIMIT, established).await.context("the definition is not established")??;
    let result = documents(&place).await;
    definitions.delete(Document::crd_name(), &DeleteParams::default()).await?;
    result
}

async fn documents(place: &Place) -> Result<()> {
    let documents: Api<Document> = Api::namespaced(place.client.clone(), &place.namespace);
    let maps = place.maps();
    let (stop, stopped) = oneshot::channel::<()>();
    let controller = Controller::new(documents.clone(), watcher::Config::default())
        .owns(maps.clone(), watcher::Config::default())
        .graceful_shutdown_on(async { drop(stopped.await) })
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(200)), Arc::new(place.client.clone()))
        .for_each(|_| futures::future::ready(()));
    let running = tokio::spawn(controller);

    let document = Document::new("letter", DocumentSpec { title: "Dear all".to_owned() });
    documents.create(&PostParams::default(), &document).await?;
    let title = |wanted: &'static str| {
        let maps = maps.clone();
        move || {
            let maps = maps.clone();
            async move {
                let data = maps.get_opt("letter").await?.and_then(|map| map.data).unwrap_or_default();
                Ok(data.get("title").is_some_and(|title| title == wanted).then_some(()))
            }
        }
    };
    eventually("the owned object", title("Dear all")).await?;
    let printed = || async { Ok(documents.get("letter").await?.status.filter(|s| s.printed).map(|_| ())) };
    eventually("the status", printed).await?;
    ensure!(documents.get("letter").await?.finalizers() == [FINALIZER]);
    let change = json!({ "spec": { "title": "Dear you" } });
    documents.patch("letter", &PatchParams::default(), &Patch::Merge(&change)).await?;
    eventually("the new title", title("Dear you")).await?;
    maps.delete("letter", &DeleteParams::default()).await?;
    eventually("the owned object again", title("Dear you")).await?;
    documents.delete("letter", &DeleteParams::default()).await?;
    let gone = || async { Ok(documents.get_opt("letter").await?.is_none().then_some(())) };
    eventually("the finalizer is taken away", gone).await?;
    let collected = || async { Ok(maps.get_opt("letter").await?.is_none().then_some(())) };
    eventually("the owned object is collected", collected).await?;
    // The controller may have ended already, with an error that the checks above have shown.
    let _ = stop.send(());
    tokio::time::timeout(LIMIT, running).await.context("the controller does not stop")??;
    Ok(())
}

/// Takes the lease if nobody has it, or whoever has it let it run out.
async fn take(leases: &Api<Lease>, name: &str, who: &str) -> Result<bool> {
    let Some(mut lease) = leases.get_opt(name).await? else {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let mut lease = Lease { metadata, ..Lease::default() };
        lease.spec.get_or_insert_default().holder_identity = Some(who.to_owned());
        return Ok(leases.create(&PostParams::default(), &lease).await.is_ok());
    };
    let spec = lease.spec.get_or_insert_default();
    if spec.holder_identity.as_deref().is_some_and(|holder| !holder.is_empty() && holder != who) {
        return Ok(false);
    }
    spec.holder_identity = Some(who.to_owned());
    spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default() + 1);
    // Whoever writes first wins: the other's version is old.
    Ok(leases.replace(name, &PostParams::default(), &lease).await.is_ok())
}

pub async fn leases(place: Place) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(place.client.clone(), &place.namespace);
    let both = futures::future::join_all(["one", "two"].map(|who| take(&leases, "kube-leader", who))).await;
    let won = both.into_iter().collect::<Result<Vec<bool>>>()?;
    ensure!(won.iter().filter(|won| **won).count() == 1, "{won:?}");
    let holder = leases.get("kube-leader").await?.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
    let other = if holder == "one" { "two" } else { "one" };
    ensure!(!take(&leases, "kube-leader", other).await?, "the lease was taken from its holder");
    let free = json!({ "spec": { "holderIdentity": null } });
    leases.patch("kube-leader", &PatchParams::default(), &Patch::Merge(&free)).await?;
    ensure!(take(&leases, "kube-leader", other).await?, "a free lease was not to be had");
    Ok(())
}
