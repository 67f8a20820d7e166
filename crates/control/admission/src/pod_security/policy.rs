//! Levels and versions of the pod security standards, and what the labels of a namespace say of them.

use super::{Violation, baseline, restricted};
use pintle_types::field::{ErrorList, FieldError, Path};
use serde_json::Value;

const PREFIX: &str = "pod-security.kubernetes.io";
/// The newest minor version whose rules are known.
const LATEST: u32 = 36;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "privileged" => Ok(Self::Privileged),
            "baseline" => Ok(Self::Baseline),
            "restricted" => Ok(Self::Restricted),
            _ => Err("must be one of privileged, baseline, restricted"),
        }
    }
}

/// `latest`, which is nothing here, or `v1.MINOR`.
pub(super) fn parse_version(text: &str) -> Result<Option<u32>, &'static str> {
    let minor = text.strip_prefix("v1.").filter(|minor| *minor == "0" || !minor.starts_with(['0', '+']));
    match minor.and_then(|minor| minor.parse().ok()) {
        Some(minor) => Ok(Some(minor)),
        None if text == "latest" => Ok(None),
        None => Err("must be \"latest\" or \"v1.x\""),
    }
}

/// A level as of a version; nothing is the latest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Policy {
    pub level: Level,
    pub version: Option<u32>,
}

impl Policy {
    fn minor(self) -> u32 {
        self.version.unwrap_or(LATEST)
    }

    /// All that a pod does against the policy.
    pub fn violations(self, metadata: &Value, spec: &Value) -> Vec<Violation> {
        if self.level == Level::Privileged {
            return Vec::new();
        }
        let restricted = self.level == Level::Restricted;
        let mut found = baseline::violations(metadata, spec, self.minor(), restricted);
        if restricted {
            found.extend(restricted::violations(spec, self.minor()));
        }
        found
    }

    /// The same as a refusal tells it: `privileged (container "a" must not …), hostPort (…)`.
    pub fn told(self, metadata: &Value, spec: &Value) -> Option<String> {
        let found = self.violations(metadata, spec);
        let told = |v: Violation| if v.detail.is_empty() { v.reason } else { format!("{} ({})", v.reason, v.detail) };
        (!found.is_empty()).then(|| found.into_iter().map(told).collect::<Vec<_>>().join(", "))
    }
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Some(minor) => write!(f, "{level}:v1.{minor}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

/// What is enforced, noted for audit, and warned of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Policies {
    pub enforce: Policy,
    pub audit: Policy,
    pub warn: Policy,
}

impl Policies {
    /// What labels say, over the defaults. What they say wrong is told, and taken for the strictest where it is
    /// enforced, for nothing where it is not.
    pub fn of(labels: &Value, defaults: &Self) -> (Self, ErrorList) {
        let (mut policies, mut errors) = (*defaults, ErrorList::new());
        for (mode, policy) in
            [("enforce", &mut policies.enforce), ("audit", &mut policies.audit), ("warn", &mut policies.warn)]
        {
            let wrong = if mode == "enforce" { Level::Restricted } else { Level::Privileged };
            let mut read = |label: String, set: &mut dyn FnMut(&str) -> Result<(), &'static str>| {
                let Some(text) = labels.get(&label).and_then(Value::as_str) else { return };
                if let Err(why) = set(text) {
                    errors.push(FieldError::invalid(&Path::new("metadata").child("labels").key(&label), text, why));
                }
            };
            read(format!("{PREFIX}/{mode}"), &mut |text| {
                let level = Level::parse(text);
                policy.level = level.unwrap_or(wrong);
                level.map(drop)
            });
            read(format!("{PREFIX}/{mode}-version"), &mut |text| {
                let version = parse_version(text);
                policy.version = version.unwrap_or_default();
                version.map(drop)
            });
        }
        (policies, errors)
    }

    pub fn are_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|policy| policy.level == Level::Privileged)
    }
}
