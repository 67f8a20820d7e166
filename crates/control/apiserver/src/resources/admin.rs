//! `componentstatuses`: the old, read-only view of whether the parts of the control plane are well.

use super::{Target, view};
use crate::media::{Shape, negotiate};
use crate::response::Answer;
use http::StatusCode;
use pintle_registry::{List, Object};
use pintle_types::Status;
use serde_json::json;

/// The parts that upstream reports on. They run in this process: that it answers says that they run.
const PARTS: [&str; 3] = ["scheduler", "controller-manager", "etcd-0"];

fn part(name: &str) -> Object {
    Object::from(json!({
        "apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": name},
        "conditions": [{"type": "Healthy", "status": "True", "message": "ok"}],
    }))
}

pub(crate) async fn component_statuses(target: &Target<'_>) -> Answer {
    let format = negotiate(&target.call.headers, Shape::List)?;
    let list = List {
        api_version: "v1".into(),
        kind: "ComponentStatusList".into(),
        revision: 0,
        continue_token: String::new(),
        remaining: None,
        items: PARTS.map(part).to_vec(),
        bare_items: true,
    };
    view::list(target, format, &list)
}

pub(crate) async fn component_status(target: &Target<'_>) -> Answer {
    let name = target.path.name.as_str();
    if !PARTS.contains(&name) {
        return Err(Box::new(Status::not_found("", "componentstatuses", name)));
    }
    let format = negotiate(&target.call.headers, Shape::Object)?;
    view::object(target, format, StatusCode::OK, &part(name))
}
