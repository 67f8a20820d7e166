//! Reads a KubeSchedulerConfiguration (`kubescheduler.config.k8s.io/v1`): profiles, back-offs, extenders.
//!
//! Unknown fields and values out of range are errors that name their path, as upstream's are. What says how upstream's
//! process runs beside its work (`leaderElection`, `clientConnection`, `parallelism`, profiling) is read over.

mod arguments;
mod extenders;
mod fields;
mod plugins;
#[cfg(test)]
mod tests;

use crate::extender::{Extender, ExtenderError, Settings};
use crate::profile::{Profile, default_profile};
use crate::run::NAME;
use fields::Fields;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";
/// More than this is no configuration that a person wrote.
const MAX_BYTES: usize = 1024 * 1024;
const MAX_PROFILES: usize = 100;

/// What a scheduler is told to do.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// One for each name that pods may ask for.
    pub(crate) profiles: Vec<Arc<Profile>>,
    pub(crate) extenders: Vec<Settings>,
    /// How long a pod waits after its first failure, and at most.
    pub(crate) backoff: [Duration; 2],
}

impl Default for Configuration {
    fn default() -> Self {
        let backoff = [Duration::from_secs(1), Duration::from_secs(10)];
        Self { profiles: vec![default_profile()], extenders: Vec::new(), backoff }
    }
}

/// A text that is no configuration: what is wrong, and where.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigurationError {
    #[error("the scheduler's configuration is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("the scheduler's configuration is not YAML: {0}")]
    Syntax(String),
    #[error("no kind {kind:?} is registered for version {version:?}: a {KIND} of {API_VERSION} is wanted")]
    Kind { kind: String, version: String },
    #[error("strict decoding error: {}", .0.join(", "))]
    Strict(Vec<String>),
    #[error("{}", listed(.0))]
    Invalid(Vec<String>),
    /// The parts do not make a whole.
    #[error("{0}")]
    Framework(String),
}

/// Several errors in brackets, as upstream's aggregates.
fn listed(errors: &[String]) -> String {
    if let [only] = errors { only.clone() } else { format!("[{}]", errors.join(", ")) }
}

impl Configuration {
    /// Whether all that it names besides is there and of use: addresses, certificates and keys of extenders.
    pub fn check(&self) -> Result<(), ExtenderError> {
        self.extenders.iter().cloned().try_for_each(|settings| Extender::new(settings).map(drop))
    }

    /// Reads YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, ConfigurationError> {
        if text.len() > MAX_BYTES {
            return Err(ConfigurationError::TooLarge);
        }
        let value: Value = serde_yaml_ng::from_str(text).map_err(|e| ConfigurationError::Syntax(e.to_string()))?;
        let said = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let (kind, version) = (said("kind"), said("apiVersion"));
        if kind != KIND || version != API_VERSION {
            return Err(ConfigurationError::Kind { kind, version });
        }
        let mut problems = fields::Problems::default();
        let read = read(&mut Fields::new(&value, "", &mut problems));
        problems.check()?;
        read
    }
}

fn read(root: &mut Fields<'_, '_>) -> Result<Configuration, ConfigurationError> {
    for ignored in ["apiVersion", "kind", "leaderElection", "clientConnection", "enableProfiling"] {
        root.skip(ignored);
    }
    root.skip("enableContentionProfiling");
    root.skip("delayCacheUntilActive");
    if root.integer("parallelism").is_some_and(|count| count <= 0) {
        root.invalid("parallelism", "should be an integer value greater than zero");
    }
    let percentage = percentage(root);
    let [first, last] = backoff(root);
    let extenders = extenders::read(root);
    let mut resolved = Ok(());
    let mut profiles: Vec<Profile> = Vec::new();
    let count = root.count("profiles").unwrap_or(0).min(MAX_PROFILES);
    let mut queue_sorts: Vec<Value> = Vec::new();
    root.each("profiles", |i, fields| {
        let name = fields.text("schedulerName").map(str::to_owned);
        let name = name.unwrap_or_else(|| if count == 1 { NAME.to_owned() } else { String::new() });
        if name.is_empty() {
            fields.required("schedulerName", "");
        } else if let Some(earlier) = profiles.iter().position(|p| p.name == name) {
            fields.duplicate("schedulerName", &format!("profiles[{earlier}].schedulerName"));
        }
        let mut profile = Profile::named(&name);
        profile.percentage = self::percentage(fields).or(percentage).unwrap_or(0);
        queue_sorts.push(fields.peek("/plugins/queueSort"));
        if queue_sorts[0] != queue_sorts[i] {
            fields.at("plugins").invalid("queueSort", "must be the same for all profiles");
        }
        arguments::read(fields, &mut profile);
        let done = plugins::read(fields, &mut profile);
        if resolved.is_ok() {
            resolved = done;
        }
        profiles.push(profile);
    });
    if profiles.is_empty() {
        profiles.push(Profile { percentage: percentage.unwrap_or(0), ..Profile::named(NAME) });
    }
    for profile in &mut profiles {
        let left = extenders.iter().flat_map(|e| &e.ignored_by_scheduler);
        profile.ignored_resources.extend(left.cloned());
    }
    root.finish();
    resolved.map_err(ConfigurationError::Framework)?;
    Ok(Configuration {
        profiles: profiles.into_iter().map(Arc::new).collect(),
        extenders,
        backoff: [first, last].map(Duration::from_secs),
    })
}

fn percentage(fields: &mut Fields<'_, '_>) -> Option<usize> {
    let percent = fields.integer("percentageOfNodesToScore")?;
    if !(0..=100).contains(&percent) {
        fields.invalid("percentageOfNodesToScore", "not in valid range [0-100]");
    }
    usize::try_from(percent).ok()
}

fn backoff(fields: &mut Fields<'_, '_>) -> [u64; 2] {
    let first = fields.integer("podInitialBackoffSeconds").unwrap_or(1);
    let last = fields.integer("podMaxBackoffSeconds").unwrap_or(10);
    if first <= 0 {
        fields.invalid("podInitialBackoffSeconds", "must be greater than 0");
    }
    if last < first {
        fields.invalid("podMaxBackoffSeconds", "must be greater than or equal to PodInitialBackoffSeconds");
    }
    [first, last].map(|seconds| u64::try_from(seconds).unwrap_or(1))
}
