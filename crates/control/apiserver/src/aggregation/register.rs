//! Keeps an APIService for every group and version that this server answers itself.
//!
//! Those of built-in groups are made at the start (`onstart`); those of definitions come and go with them (`true`).
//! One that somebody made in their place, without the label, is left alone, as upstream does.

use super::{AUTOMANAGED, GROUP, MANAGER, RESOURCE, user};
use crate::server::Server;
use crate::usage;
use parking_lot::Mutex;
use pintle_aggregator::priority::{self, Priority};
use pintle_registry::{AdmitAll, DeleteOptions, Patch, Request};
use pintle_types::Status;
use pintle_usage::objects;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// By name: the label and the spec.
type Present = Mutex<BTreeMap<String, (String, Value)>>;

const ON_START: &str = "onstart";
const ALWAYS: &str = "true";
/// Made when there is none; whoever puts another server in its place may change it.
const IF_MISSING: &str = "";

/// Makes, changes and deletes APIServices until they fit what is served.
pub(super) async fn sync(server: &Server, present: &Present) {
    let wanted = wanted(server);
    let plan = plan(&wanted, &present.lock());
    let steps = plan.into_iter().map(|step| async move {
        let name = step.name().to_owned();
        if let Err(error) = take(server, step).await {
            tracing::warn!(api_service = name, %error, "an APIService could not be registered");
        }
    });
    futures::future::join_all(steps).await;
}

/// The label and the spec of each APIService that there is to be, by name.
fn wanted(server: &Server) -> BTreeMap<String, (&'static str, Value)> {
    let mut wanted = BTreeMap::new();
    for def in server.registry.table().iter().filter(|def| server.serves(def)) {
        let (label, numbers) = match &def.schema {
            Some(_) => (ALWAYS, Some(priority::CUSTOM)),
            None => (ON_START, priority::built_in(&def.group, &def.version)),
        };
        let Some(Priority { group, version }) = numbers else { continue };
        wanted.entry(format!("{}.{}", def.version, def.group)).or_insert_with(|| {
            let mut spec = json!({
                "version": def.version, "groupPriorityMinimum": group, "versionPriority": version,
            });
            if !def.group.is_empty() {
                spec["group"] = def.group.as_str().into();
            }
            (label, spec)
        });
    }
    if usage::is_enabled(server) {
        let spec = json!({
            "group": objects::GROUP, "version": objects::VERSION,
            "groupPriorityMinimum": objects::GROUP_PRIORITY, "versionPriority": objects::VERSION_PRIORITY,
        });
        wanted.insert(format!("{}.{}", objects::VERSION, objects::GROUP), (IF_MISSING, spec));
    }
    wanted
}

#[derive(Debug, PartialEq)]
enum Step {
    Create(String, &'static str, Value),
    Change(String, &'static str, Value),
    Delete(String),
}

impl Step {
    fn name(&self) -> &str {
        match self {
            Self::Create(name, ..) | Self::Change(name, ..) | Self::Delete(name) => name,
        }
    }
}

fn plan(wanted: &BTreeMap<String, (&'static str, Value)>, present: &BTreeMap<String, (String, Value)>) -> Vec<Step> {
    let mut steps = Vec::new();
    for (name, (label, spec)) in wanted {
        match present.get(name) {
            None => steps.push(Step::Create(name.clone(), label, spec.clone())),
            Some((given, _)) if given.is_empty() || *label == IF_MISSING => {}
            Some((given, there)) if given != label || there != spec => {
                steps.push(Step::Change(name.clone(), label, spec.clone()));
            }
            Some(_) => {}
        }
    }
    let gone = present.iter().filter(|(name, (label, _))| label == ALWAYS && !wanted.contains_key(*name));
    steps.extend(gone.map(|(name, _)| Step::Delete(name.clone())));
    steps
}

async fn take(server: &Server, step: Step) -> Result<(), Status> {
    let table = server.registry.table();
    let def = table.get(GROUP, "v1", RESOURCE).ok_or_else(Status::no_such_resource)?;
    let user = user();
    let request = Request::new(&user, &AdmitAll, MANAGER);
    let registry = &server.registry;
    let done = match step {
        Step::Create(name, label, spec) => {
            let mut object = json!({
                "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "spec": spec,
                "metadata": {"name": name},
            });
            if label != IF_MISSING {
                object["metadata"]["labels"] = json!({AUTOMANAGED: label});
            }
            registry.create(&request, def, "", object).await.map(|_| ())
        }
        Step::Change(name, label, spec) => {
            let change = Patch::Merge(json!({"metadata": {"labels": {AUTOMANAGED: label}}, "spec": spec}));
            registry.patch(&request, def, "", &name, "", &change).await.map(|_| ())
        }
        Step::Delete(name) => registry.delete(&request, def, "", &name, &DeleteOptions::default()).await.map(|_| ()),
    };
    match done {
        // Somebody was faster, and their event is on its way.
        Err(status) if matches!(status.code, 404 | 409) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_server_made_is_changed_or_deleted() {
        let spec = |n: i32| json!({"version": "v1", "group": "a.io", "groupPriorityMinimum": n});
        let wanted: BTreeMap<_, _> =
            ["v1.a.io", "v1.b.io", "v1.c.io"].map(|n| (n.to_owned(), (ALWAYS, spec(1)))).into();
        let present = [
            ("v1.a.io".to_owned(), (ALWAYS.to_owned(), spec(2))),
            ("v1.b.io".to_owned(), (String::new(), spec(2))),
            ("v1.d.io".to_owned(), (ALWAYS.to_owned(), spec(1))),
            ("v1.e.io".to_owned(), (String::new(), spec(1))),
            ("v1.f.io".to_owned(), (ON_START.to_owned(), spec(1))),
        ]
        .into();
        assert_eq!(
            plan(&wanted, &present),
            [
                Step::Change("v1.a.io".into(), ALWAYS, spec(1)),
                Step::Create("v1.c.io".into(), ALWAYS, spec(1)),
                Step::Delete("v1.d.io".into()),
            ]
        );
    }
}
