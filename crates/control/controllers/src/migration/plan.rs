//! What the conditions of a migration say, and what an object is sent so that it is written anew.

use crate::discovery::Resource;
use crate::metadata::Metadata;
use pintle_types::Time;
use pintle_types::k8s::api::storagemigration::v1beta1::StorageVersionMigrationStatus;
use pintle_types::k8s::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};

/// How far a migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Running,
    Succeeded,
    Failed,
}

impl Stage {
    fn type_(self) -> &'static str {
        match self {
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Running => "StorageVersionMigrationInProgress",
            Self::Succeeded => "StorageVersionMigrationSucceeded",
            Self::Failed => "StorageVersionMigrationFailed",
        }
    }
}

fn is_true(status: &StorageVersionMigrationStatus, stage: Stage) -> bool {
    let conditions = status.conditions.iter().flatten();
    conditions.into_iter().any(|condition| condition.type_ == stage.type_() && condition.status == "True")
}

/// Whether nothing is left to be done.
pub fn is_over(status: &StorageVersionMigrationStatus) -> bool {
    is_true(status, Stage::Succeeded) || is_true(status, Stage::Failed)
}

/// The status of a migration that got to a stage. What is over does not run any more.
pub fn at(
    old: &StorageVersionMigrationStatus,
    stage: Stage,
    message: &str,
    now: &Time,
) -> StorageVersionMigrationStatus {
    let mut status = old.clone();
    if is_true(old, stage) {
        return status;
    }
    let conditions = status.conditions.get_or_insert_default();
    if stage != Stage::Running {
        for running in conditions.iter_mut().filter(|condition| condition.type_ == Stage::Running.type_()) {
            running.status = "False".into();
            running.last_transition_time = now.clone();
        }
    }
    conditions.retain(|condition| condition.type_ != stage.type_());
    conditions.push(Condition {
        type_: stage.type_().into(),
        status: "True".into(),
        reason: stage.reason().into(),
        message: message.into(),
        last_transition_time: now.clone(),
        observed_generation: None,
    });
    status
}

/// Applied to an object, this changes nothing and has it written anew. Uid and version make sure that it is the object
/// that was listed: one that was changed or made since then is stored in the new version already.
pub fn touch(resource: &Resource, object: &Metadata) -> Value {
    let version = match resource.group.as_str() {
        "" => resource.version.clone(),
        group => format!("{group}/{}", resource.version),
    };
    json!({
        "apiVersion": version,
        "kind": resource.kind,
        "metadata": { "name": object.name, "uid": object.uid, "resourceVersion": object.resource_version },
    })
}
