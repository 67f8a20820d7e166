//! What the devices of a claim must have alike, or must not.

use pintle_types::k8s::api::resource::v1::{Device, DeviceAttribute, DeviceConstraint};

/// A constraint with the devices that it holds for so far; the last to come is the first to go.
pub(super) struct Constraint<'a> {
    requests: &'a [String],
    attribute: &'a str,
    distinct: bool,
    values: Vec<&'a DeviceAttribute>,
}

fn attribute<'a>(device: &'a Device, driver: &str, name: &str) -> Option<&'a DeviceAttribute> {
    let attributes = device.attributes.as_ref()?;
    if let Some(found) = attributes.get(name) {
        return Some(found);
    }
    let (domain, own) = name.split_once('/')?;
    // A name without a domain is the driver's.
    attributes.get(own).filter(|_| domain == driver)
}

fn alike(a: &DeviceAttribute, b: &DeviceAttribute) -> bool {
    match (a.string.is_some(), a.int.is_some(), a.bool.is_some(), a.version.is_some()) {
        (true, ..) => a.string == b.string,
        (_, true, ..) => a.int == b.int,
        (_, _, true, _) => a.bool == b.bool,
        (.., true) => a.version == b.version,
        _ => false,
    }
}

fn has_value(a: &DeviceAttribute) -> bool {
    a.string.is_some() || a.int.is_some() || a.bool.is_some() || a.version.is_some()
}

impl<'a> Constraint<'a> {
    /// Fails for one of a kind that is not known.
    pub(super) fn new(from: &'a DeviceConstraint) -> Option<Self> {
        let distinct = from.match_attribute.is_none();
        let attribute = from.match_attribute.as_deref().or(from.distinct_attribute.as_deref())?;
        let requests = from.requests.as_deref().unwrap_or_default();
        Some(Self { requests, attribute, distinct, values: Vec::new() })
    }

    fn concerns(&self, request: &str, alternative: Option<&str>) -> bool {
        let named = |name: &String| match (name.split_once('/'), alternative) {
            (Some((parent, own)), Some(alternative)) => parent == request && own == alternative,
            _ => name == request,
        };
        self.requests.is_empty() || self.requests.iter().any(named)
    }

    /// Adds the device if that keeps to the constraint.
    pub(super) fn add(&mut self, request: &str, alternative: Option<&str>, device: &'a Device, driver: &str) -> bool {
        if !self.concerns(request, alternative) {
            return true;
        }
        let Some(value) = attribute(device, driver, self.attribute).filter(|value| has_value(value)) else {
            return false;
        };
        let fits = match self.distinct {
            true => !self.values.iter().any(|other| alike(value, other)),
            false => self.values.first().is_none_or(|first| alike(value, first)),
        };
        if fits {
            self.values.push(value);
        }
        fits
    }

    /// Takes the last that was added away again.
    pub(super) fn remove(&mut self, request: &str, alternative: Option<&str>) {
        if self.concerns(request, alternative) {
            self.values.pop();
        }
    }
}
