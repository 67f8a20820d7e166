//! Migrations run once, and tell how they ended.

use super::plan::{self, Stage};
use crate::discovery::Resource;
use crate::metadata::Metadata;
use pintle_clock::Timestamp;
use pintle_types::Time;
use pintle_types::k8s::api::storagemigration::v1beta1::StorageVersionMigrationStatus;
use serde_json::json;

fn told(status: &StorageVersionMigrationStatus) -> Vec<String> {
    let conditions = status.conditions.iter().flatten();
    conditions.into_iter().map(|c| format!("{}={} {}: {}", c.type_, c.status, c.reason, c.message)).collect()
}

#[test]
fn stages_follow_each_other() {
    let now = Time(Timestamp::from_second(1_700_000_000).unwrap());
    let new = StorageVersionMigrationStatus { resource_version: Some("7".into()), ..Default::default() };
    let running = plan::at(&new, Stage::Running, "", &now);
    assert_eq!(told(&running), ["Running=True StorageVersionMigrationInProgress: "]);
    assert!(!plan::is_over(&new) && !plan::is_over(&running));
    for (from, stage, message, expected) in [
        (
            &running,
            Stage::Succeeded,
            "",
            &["Running=False StorageVersionMigrationInProgress: ", "Succeeded=True StorageVersionMigrationSucceeded: "]
                [..],
        ),
        (
            &running,
            Stage::Failed,
            "why",
            &["Running=False StorageVersionMigrationInProgress: ", "Failed=True StorageVersionMigrationFailed: why"],
        ),
        (&new, Stage::Failed, "why", &["Failed=True StorageVersionMigrationFailed: why"]),
    ] {
        let over = plan::at(from, stage, message, &now);
        assert_eq!(told(&over), expected);
        assert!(plan::is_over(&over) && over.resource_version.as_deref() == Some("7"));
        assert_eq!(plan::at(&over, stage, "again", &now), over, "what is told is told once");
    }
}

#[test]
fn an_object_is_touched_as_it_was_listed() {
    let object = Metadata { name: "a".into(), uid: "u".into(), resource_version: "9".into(), ..Metadata::default() };
    for (group, version, expected) in [("", "v1", "v1"), ("apps", "v1", "apps/v1")] {
        let resource = Resource {
            group: group.into(),
            version: version.into(),
            resource: "things".into(),
            kind: "Thing".into(),
            namespaced: true,
            verbs: Vec::new(),
        };
        let meta = json!({ "name": "a", "uid": "u", "resourceVersion": "9" });
        let whole = json!({ "apiVersion": expected, "kind": "Thing", "metadata": meta });
        assert_eq!(plan::touch(&resource, &object), whole);
    }
}
