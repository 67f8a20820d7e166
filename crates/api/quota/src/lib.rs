//! How much of a ResourceQuota an object uses: pods, services, claims and plain counts.
//!
//! Both sides of quotas share it: admission, which charges what is created, and the controller, which counts what is
//! there. Objects come as JSON trees in the form of `v1`.
//!
//! Source: `pkg/quota/v1` of Kubernetes and `pkg/quota/v1` of its apiserver.

mod amounts;
mod claims;
mod pods;
mod scopes;
mod services;
#[cfg(test)]
mod tests;

pub use amounts::{Amounts, add, exceeded, grown, mask, parse, show, to_value};
pub use scopes::in_scope;

use pintle_types::quantity::{Format, Quantity};
use serde_json::Value;

/// A kind of objects, by what its API calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource<'a> {
    pub group: &'a str,
    pub resource: &'a str,
}

impl<'a> Resource<'a> {
    pub fn new(group: &'a str, resource: &'a str) -> Self {
        Self { group, resource }
    }

    fn core(self) -> Option<&'a str> {
        self.group.is_empty().then_some(self.resource)
    }

    /// The name under which its objects are counted: `count/pods`, `count/deployments.apps`.
    pub fn count_name(self) -> String {
        match self.group {
            "" => format!("count/{}", self.resource),
            group => format!("count/{}.{group}", self.resource),
        }
    }

    /// Whether an update can change what an object uses.
    pub fn changes(self) -> bool {
        matches!(self.core(), Some("services" | "persistentvolumeclaims"))
    }

    /// Whether the name of a quota's resource says anything of these objects.
    pub fn is_named_by(self, name: &str) -> bool {
        if name == self.count_name() {
            return true;
        }
        match self.core() {
            Some("pods") => pods::is_named_by(name),
            Some("services") => matches!(name, "services" | "services.nodeports" | "services.loadbalancers"),
            Some("persistentvolumeclaims") => claims::is_named_by(name),
            Some(resource @ ("configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas")) => {
                name == resource
            }
            _ => false,
        }
    }

    /// What an object uses, under every name that a quota could have for it. `now` in seconds since 1970: pods whose
    /// time to go is over use nothing.
    pub fn usage(self, object: &Value, now: i64) -> Amounts {
        let mut used = Amounts::new();
        used.insert(self.count_name(), one());
        match self.core() {
            Some("pods") => pods::usage(object, now, &mut used),
            Some("services") => services::usage(object, &mut used),
            Some("persistentvolumeclaims") => claims::usage(object, &mut used),
            Some(resource @ ("configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas")) => {
                used.insert(resource.to_owned(), one());
            }
            _ => {}
        }
        used
    }

    /// What an object must say so that these resources of a quota can be charged for it; the error is upstream's.
    pub fn check(self, object: &Value, names: &[&str]) -> Result<(), String> {
        match self.core() {
            Some("pods") => pods::check(object, names),
            _ => Ok(()),
        }
    }

    /// Whether a quota is about this object: it names its resources, and the object is in all its scopes.
    pub fn is_covered_by(self, quota: &Value, object: &Value) -> bool {
        let hard = quota["status"]["hard"].as_object();
        hard.into_iter().flatten().any(|(name, _)| self.is_named_by(name)) && in_scope(self, quota, object)
    }
}

fn one() -> Quantity {
    Quantity::from_units(1, Format::DecimalSi)
}

fn count(n: usize) -> Quantity {
    Quantity::from_units(i64::try_from(n).unwrap_or(i64::MAX), Format::DecimalSi)
}

fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}
