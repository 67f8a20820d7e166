//! What claims of volumes use: themselves and their storage, also by storage class.

use crate::amounts::{Amounts, parse};
use crate::{one, text};
use pintle_types::quantity::Quantity;
use serde_json::Value;

const OF_CLASS: &str = ".storageclass.storage.k8s.io/";

pub(crate) fn is_named_by(name: &str) -> bool {
    let name = name.split_once(OF_CLASS).map_or(name, |(_, name)| name);
    matches!(name, "persistentvolumeclaims" | "requests.storage")
}

/// The class of a claim, also where old clients wrote it.
fn class(claim: &Value) -> &str {
    let old = text(&claim["metadata"]["annotations"], "volume.beta.kubernetes.io/storage-class");
    if old.is_empty() { text(&claim["spec"], "storageClassName") } else { old }
}

pub(crate) fn usage(claim: &Value, used: &mut Amounts) {
    let class = class(claim);
    let mut note = |name: &str, amount: Quantity| {
        used.insert(name.to_owned(), amount);
        if !class.is_empty() {
            used.insert(format!("{class}{OF_CLASS}{name}"), amount);
        }
    };
    note("persistentvolumeclaims", one());
    if let Some(storage) = storage(claim) {
        // Parts of a byte count as a whole one.
        let whole = if storage.is_whole() { storage } else { Quantity::from_units(storage.units(), storage.format()) };
        note("requests.storage", whole);
    }
}

/// The larger of what is asked for and what was given already.
fn storage(claim: &Value) -> Option<Quantity> {
    let asked = parse(&claim["spec"]["resources"]["requests"]).remove("storage")?;
    let given = parse(&claim["status"]["allocatedResources"]).remove("storage");
    Some(given.filter(|given| *given > asked).unwrap_or(asked))
}

/// The volume attributes classes that a claim has or is about to have.
pub(crate) fn attributes_classes(claim: &Value) -> impl Iterator<Item = &str> {
    let names = [
        text(&claim["spec"], "volumeAttributesClassName"),
        text(&claim["status"], "currentVolumeAttributesClassName"),
        text(&claim["status"]["modifyVolumeStatus"], "targetVolumeAttributesClassName"),
    ];
    names.into_iter().filter(|name| !name.is_empty())
}
