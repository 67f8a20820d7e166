//! Decides when the pods of a claim have to go, and because of what. Source of the rules: upstream's
//! device-taint-eviction controller.

use pintle_clock::Timestamp;
use pintle_devices::{is_about, taint_of, tolerates};
use pintle_types::k8s::api::resource::v1::{
    DeviceRequestAllocationResult, DeviceTaint, DeviceToleration, ResourceClaim,
};
use pintle_types::k8s::api::resource::v1beta2::DeviceTaintRule;
use std::collections::BTreeSet;
use std::sync::Arc;

/// When pods go, and the names of the rules that have to do with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Eviction {
    pub at: Timestamp,
    pub rules: BTreeSet<String>,
}

impl Eviction {
    /// Both: the earlier time, and all rules.
    pub fn and(self, other: Self) -> Self {
        Self { at: self.at.min(other.at), rules: self.rules.into_iter().chain(other.rules).collect() }
    }
}

/// The devices that were allocated for a claim.
pub fn devices(claim: &ResourceClaim) -> impl Iterator<Item = &DeviceRequestAllocationResult> {
    let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
    allocation.and_then(|it| it.devices.as_ref()).into_iter().flat_map(|devices| devices.results.iter().flatten())
}

/// When the pods of a claim have to go; nothing while its devices can be borne. `published` are the taints that the
/// driver gave a device; `rules` are those that evict.
pub fn eviction(
    claim: &ResourceClaim,
    published: impl Fn(&DeviceRequestAllocationResult) -> Vec<DeviceTaint>,
    rules: &[Arc<DeviceTaintRule>],
) -> Option<Eviction> {
    let mut out: Option<Eviction> = None;
    for device in devices(claim) {
        let own = published(device).into_iter().filter(|taint| taint.effect == "NoExecute").map(|taint| (taint, None));
        let matching = rules.iter().filter(|rule| is_about(rule, &device.driver, &device.pool, &device.device));
        let ruled = matching.map(|rule| (taint_of(rule), rule.metadata.name.clone()));
        for (taint, rule) in own.chain(ruled) {
            let Some(at) = due(&taint, device.tolerations.as_deref().unwrap_or_default()) else { continue };
            let one = Eviction { at, rules: rule.into_iter().collect() };
            out = Some(match out {
                Some(known) => known.and(one),
                None => one,
            });
        }
    }
    out
}

/// When a taint is not borne any more; nothing when it is borne forever. Of tolerations only those count that name the
/// effect.
fn due(taint: &DeviceTaint, tolerations: &[DeviceToleration]) -> Option<Timestamp> {
    let added = taint.time_added.as_ref()?.0;
    let mut borne: Option<i64> = None;
    let named = tolerations.iter().filter(|toleration| toleration.effect.as_deref() == Some("NoExecute"));
    for toleration in named.filter(|toleration| tolerates(toleration, taint)) {
        let seconds = toleration.toleration_seconds?.max(0);
        borne = Some(borne.map_or(seconds, |known| known.min(seconds)));
    }
    Timestamp::from_second(added.as_second().saturating_add(borne.unwrap_or(0))).ok()
}

/// What a rule comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub pods: usize,
    pub namespaces: usize,
    /// Of slices, and of allocations; only of rules without effect.
    pub published: usize,
    pub allocated: usize,
    /// Since the controller started.
    pub evicted: usize,
}

/// Status, reason and message of the condition `EvictionInProgress` of a rule.
pub fn condition(effect: &str, counts: Counts) -> (&'static str, &'static str, String) {
    let Counts { pods, namespaces, published, allocated, evicted } = counts;
    let number = |count: usize, one: &str, many: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    };
    let (status, reason, mut message) = match effect {
        "NoExecute" if pods > 0 => {
            let who = number(pods, "pod needs to be evicted", "pods need to be evicted");
            let places = number(namespaces, "namespace", "different namespaces");
            ("True", "PodsPendingEviction", format!("{who} in {places}."))
        }
        "NoExecute" if evicted > 0 => ("False", "Completed", String::new()),
        "NoExecute" => ("False", "NotStarted", String::new()),
        "None" => {
            let devices = number(published, "published device selected", "published devices selected");
            let taken = number(allocated, "allocated device selected", "allocated devices selected");
            let who = number(pods, "pod would be evicted", "pods would be evicted");
            let places = number(namespaces, "namespace", "different namespaces");
            let rest = "if the effect was NoExecute. This information will not be updated again. Recreate the \
                        DeviceTaintRule to trigger an update.";
            ("False", "NoEffect", format!("{devices}. {taken}. {who} in {places} {rest}"))
        }
        _ => ("False", "OtherEffect", "Eviction only happens for the NoExecute effect.".to_owned()),
    };
    if evicted > 0 {
        if !message.is_empty() {
            message.push(' ');
        }
        message.push_str(&number(evicted, "pod ", "pods "));
        message.push_str("evicted since starting the controller.");
    }
    (status, reason, message)
}
