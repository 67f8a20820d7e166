//! The statuses of the control plane's parts, an old view that only shows.

use super::workload;
use crate::{
    column::{self, Column},
    strategy::Strategy,
    tree,
};
use jiff::Timestamp;
use serde_json::Value;

pub struct ComponentStatus;

static COLUMNS: &[Column] = &[
    column::NAME,
    Column::new("Status", "string", "", 0, "Status of the component conditions"),
    Column::new("Message", "string", "", 0, "Message of the component conditions"),
    Column::new("Error", "string", "", 0, "Error of the component conditions"),
];

impl Strategy for ComponentStatus {
    fn deprecation(&self) -> Option<&'static str> {
        Some("v1 ComponentStatus is deprecated in v1.19+")
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let healthy = tree::list(object, "conditions").iter().find(|it| tree::text(it, "type") == "Healthy");
        let [status, message, error] = match healthy {
            None => ["Unknown", "", ""],
            Some(it) => {
                let status = if tree::text(it, "status") == "True" { "Healthy" } else { "Unhealthy" };
                [status, tree::text(it, "message"), tree::text(it, "error")]
            }
        };
        vec![workload::name(object), status.into(), message.into(), error.into()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_health_of_a_part_is_a_column() {
        let part = |status: &str| {
            let condition = json!({"type": "Healthy", "status": status, "message": "ok"});
            ComponentStatus.cells(&json!({"metadata": {"name": "a"}, "conditions": [condition]}), Timestamp::UNIX_EPOCH)
        };
        assert_eq!(part("True"), ["a", "Healthy", "ok", ""]);
        assert_eq!(part("False"), ["a", "Unhealthy", "ok", ""]);
        let unknown = ComponentStatus.cells(&json!({"metadata": {"name": "a"}}), Timestamp::UNIX_EPOCH);
        assert_eq!(unknown, ["a", "Unknown", "", ""]);
    }
}
