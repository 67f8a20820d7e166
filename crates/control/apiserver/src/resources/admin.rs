//! `componentstatuses`: the old, read-only view of whether the parts of the control plane are well.

use super::{Target, encode_value};
use crate::media::{Shape, negotiate};
use crate::response::{Answer, JSON, YAML, with_type};
use http::StatusCode;
use pintle_types::Status;
use serde_json::{Value, json};

/// The parts that upstream reports on. They run in this process: that it answers says that they run.
const PARTS: [&str; 3] = ["scheduler", "controller-manager", "etcd-0"];

fn part(name: &str, with_kind: bool) -> Value {
    let mut value = json!({
        "metadata": {"name": name},
        "conditions": [{"type": "Healthy", "status": "True", "message": "ok"}],
    });
    if with_kind {
        value["kind"] = "ComponentStatus".into();
        value["apiVersion"] = "v1".into();
    }
    value
}

pub(crate) async fn component_statuses(target: &Target<'_>) -> Answer {
    let items: Vec<Value> = PARTS.iter().map(|name| part(name, false)).collect();
    let list = json!({"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": items});
    send(target, Shape::Other, &list)
}

pub(crate) async fn component_status(target: &Target<'_>) -> Answer {
    let name = target.path.name.as_str();
    if !PARTS.contains(&name) {
        return Err(Box::new(Status::not_found("", "componentstatuses", name)));
    }
    send(target, Shape::Other, &part(name, true))
}

fn send(target: &Target<'_>, shape: Shape, value: &Value) -> Answer {
    target.call.warn(["v1 ComponentStatus is deprecated in v1.19+".to_owned()]);
    let format = negotiate(&target.call.headers, shape)?;
    let content_type = if format.yaml { YAML } else { JSON };
    Ok(with_type(StatusCode::OK, content_type, encode_value(value, format.yaml)))
}
