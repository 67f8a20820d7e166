//! Expressions that choose devices: compiled once, and held against devices.

use parking_lot::Mutex;
use pintle_cel::device::{self, Attribute};
use pintle_cel::{Program, Value};
use pintle_types::k8s::api::resource::v1::{Device, DeviceSelector};
use std::collections::HashMap;
use std::sync::Arc;

/// Programs that are kept.
const MOST: usize = 64;

type Compiled = Arc<Result<Program, String>>;

/// The programs of expressions that were used last.
#[derive(Default)]
pub(crate) struct Selectors(Mutex<HashMap<String, Compiled>>);

impl std::fmt::Debug for Selectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Selectors")
    }
}

impl Selectors {
    fn get(&self, source: &str) -> Compiled {
        let mut kept = self.0.lock();
        if let Some(known) = kept.get(source) {
            return Arc::clone(known);
        }
        // Clusters have a handful; those that have many compile some again.
        if kept.len() >= MOST {
            kept.clear();
        }
        let compiled = Arc::new(device::compile(source).map_err(|error| error.to_string()));
        kept.insert(source.to_owned(), Arc::clone(&compiled));
        compiled
    }

    /// Whether all of them choose the device. `whose` and `which` are of the messages.
    pub(super) fn all_match(
        &self,
        selectors: &[DeviceSelector],
        device: &Value<'_>,
        whose: &str,
        which: &dyn Fn() -> String,
    ) -> Result<bool, String> {
        for (i, selector) in selectors.iter().enumerate() {
            let Some(cel) = &selector.cel else {
                return Err(format!("{whose}, selector #{i}: CEL expression empty (unsupported selector type?)"));
            };
            let program = self.get(&cel.expression);
            let program = program.as_ref().as_ref();
            let program = program.map_err(|error| format!("{whose}: selector #{i}: CEL compile error: {error}"))?;
            let failed = |error: pintle_cel::EvalError| {
                format!(
                    "{whose}: selector #{i} on device {}: CEL runtime error: {}",
                    which(),
                    hinted(error.to_string())
                )
            };
            if !device::matches(program, device).map_err(failed)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Most such errors are of attributes that only some devices have.
fn hinted(error: String) -> String {
    if !error.contains("no such key:") {
        return error;
    }
    format!(
        "{error}. consider using CEL optional chaining (.? followed by orValue()) or guarding the check with has() for \
         optional fields"
    )
}

/// The variable `device`.
pub(super) fn value<'a>(driver: &'a str, from: &'a Device) -> Result<Value<'a>, String> {
    let mut device = device::Device { driver, ..Default::default() };
    for (name, attribute) in from.attributes.iter().flatten() {
        let value = match attribute {
            a if a.int.is_some() => Attribute::Int(a.int.unwrap_or_default()),
            a if a.bool.is_some() => Attribute::Bool(a.bool.unwrap_or_default()),
            a if a.string.is_some() => Attribute::Text(a.string.as_deref().unwrap_or_default()),
            a if a.version.is_some() => Attribute::Version(a.version.as_deref().unwrap_or_default()),
            _ => return Err(format!("attribute {name}: unsupported attribute value")),
        };
        device.attributes.push((name, value));
    }
    for (name, capacity) in from.capacity.iter().flatten() {
        device.capacity.push((name, &capacity.value.0));
    }
    device.allow_multiple_allocations = from.allow_multiple_allocations == Some(true);
    device.value().map_err(|error| error.to_string())
}
