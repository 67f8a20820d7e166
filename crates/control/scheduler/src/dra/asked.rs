//! What a claim asks for, one way to meet each request after the other.

use super::devices::Devices;
use pintle_devices::{repels, tolerates};
use pintle_types::Kind;
use pintle_types::k8s::api::resource::v1::{
    DeviceClass, DeviceRequest, DeviceSelector, DeviceTaint, DeviceToleration, ResourceClaim,
};
use pintle_types::k8s::apimachinery::pkg::api::resource::Quantity as Raw;
use std::collections::BTreeMap;

/// Devices that a claim gets at most.
pub(super) const MOST_DEVICES: usize = 32;

/// One way to meet a request: the request itself, or one of its alternatives.
pub(super) struct Way<'a> {
    pub(super) request: &'a str,
    /// The name of the alternative.
    pub(super) alternative: Option<&'a str>,
    pub(super) class: &'a DeviceClass,
    pub(super) selectors: &'a [DeviceSelector],
    pub(super) tolerations: Option<&'a Vec<DeviceToleration>>,
    pub(super) capacity: Option<&'a BTreeMap<String, Raw>>,
    pub(super) admin: bool,
    /// Whether all devices are asked for that will do: then `count` is known once they were looked at.
    pub(super) all: bool,
    pub(super) count: usize,
}

impl<'a> Way<'a> {
    /// As results name it.
    pub(super) fn name(&self) -> String {
        match self.alternative {
            Some(alternative) => format!("{}/{alternative}", self.request),
            None => self.request.to_owned(),
        }
    }

    /// What it is called in messages.
    pub(super) fn own_name(&self) -> &'a str {
        self.alternative.unwrap_or(self.request)
    }

    pub(super) fn tolerates(&self, taint: &DeviceTaint) -> bool {
        !repels(taint) || self.tolerations.into_iter().flatten().any(|toleration| tolerates(toleration, taint))
    }
}

/// The ways to meet a request, the best first. Fails in upstream's words.
pub(super) fn ways<'a>(
    claim: &ResourceClaim,
    request: &'a DeviceRequest,
    devices: &'a Devices,
) -> Result<Vec<Way<'a>>, String> {
    let make = |alternative: Option<&'a str>, class: &'a str, mode: Option<&str>, count: Option<i64>| {
        let name = alternative.unwrap_or(&request.name);
        let whose = || format!("claim {}, request {name}", claim.key());
        let found = devices.class(class);
        let class = found.ok_or_else(|| format!("{}: could not retrieve device class {class}", whose()))?;
        let all = match mode.unwrap_or("ExactCount") {
            "ExactCount" => false,
            "All" => true,
            other => return Err(format!("{}: unsupported count mode {other}", whose())),
        };
        let count = usize::try_from(count.unwrap_or(1)).map_err(|_| format!("{}: a count below 0", whose()))?;
        Ok(Way {
            request: &request.name,
            alternative,
            class,
            selectors: &[],
            tolerations: None,
            capacity: None,
            admin: false,
            all,
            count,
        })
    };
    if let Some(exactly) = &request.exactly {
        let way = make(None, &exactly.device_class_name, exactly.allocation_mode.as_deref(), exactly.count)?;
        return Ok(vec![Way {
            selectors: exactly.selectors.as_deref().unwrap_or_default(),
            tolerations: exactly.tolerations.as_ref(),
            capacity: exactly.capacity.as_ref().and_then(|capacity| capacity.requests.as_ref()),
            admin: exactly.admin_access == Some(true),
            ..way
        }]);
    }
    let alternatives = request.first_available.as_deref().unwrap_or_default();
    if alternatives.is_empty() {
        return Err(format!("claim {}, request {}: unsupported request type", claim.key(), request.name));
    }
    let each = alternatives.iter().map(|sub| {
        let way = make(Some(&sub.name), &sub.device_class_name, sub.allocation_mode.as_deref(), sub.count)?;
        Ok(Way {
            selectors: sub.selectors.as_deref().unwrap_or_default(),
            tolerations: sub.tolerations.as_ref(),
            capacity: sub.capacity.as_ref().and_then(|capacity| capacity.requests.as_ref()),
            ..way
        })
    });
    each.collect()
}
