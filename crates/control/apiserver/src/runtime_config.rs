//! Which versions of built-in kinds are served: upstream's `--runtime-config`.

use pintle_kinds::table::version_rank;
use std::str::FromStr;

/// What a version's stage ranks as.
const STABLE: u8 = 3;
const BETA: u8 = 2;

/// Versions that are turned on and off. Without any, the stable ones are served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeConfig(Vec<(Which, bool)>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Which {
    All,
    Stage(u8),
    Version { group: String, version: String },
}

/// A part of the text that says nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no version to turn on or off: write api/all, api/ga, api/beta, api/alpha or GROUP/VERSION, and =true or =false"
)]
pub struct RuntimeConfigError(String);

impl RuntimeConfig {
    /// Whether a version of a built-in group is served. What is said of it alone counts most, then what of its stage, then
    /// what of all.
    pub fn serves(&self, group: &str, version: &str) -> bool {
        let stage = version_rank(version).0;
        let said = |wanted: &dyn Fn(&Which) -> bool| self.0.iter().rev().find(|(of, _)| wanted(of)).map(|(_, on)| *on);
        let of_version =
            |of: &Which| matches!(of, Which::Version { group: g, version: v } if g == group && v == version);
        said(&of_version)
            .or_else(|| said(&|of| *of == Which::Stage(stage)))
            .or_else(|| said(&|of| *of == Which::All))
            .unwrap_or(stage == STABLE)
    }

    /// The groups and versions that are named one by one.
    pub fn named(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(of, _)| match of {
            Which::Version { group, version } => Some((group.as_str(), version.as_str())),
            _ => None,
        })
    }
}

impl FromStr for RuntimeConfig {
    type Err = RuntimeConfigError;

    /// Reads `NAME[=true|false],…`; a name alone turns on.
    fn from_str(text: &str) -> Result<Self, RuntimeConfigError> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts
            .map(|part| one(part).ok_or_else(|| RuntimeConfigError(part.to_owned())))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn one(part: &str) -> Option<(Which, bool)> {
    let (name, on) = part.split_once('=').unwrap_or((part, "true"));
    let of = match name {
        "api/all" => Which::All,
        "api/ga" => Which::Stage(STABLE),
        "api/beta" => Which::Stage(BETA),
        "api/alpha" => Which::Stage(BETA - 1),
        "v1" | "api/v1" => Which::Version { group: String::new(), version: "v1".into() },
        name => {
            let (group, version) = name.split_once('/')?;
            // Single resources can't be turned off.
            let fits = !group.is_empty() && version_rank(version).0 > 0;
            fits.then(|| Which::Version { group: group.into(), version: version.into() })?
        }
    };
    Some((of, on.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_counts() {
        for (text, served) in [
            ("", [true, false, false]),
            ("api/all=true", [true, true, true]),
            ("api/beta", [true, true, false]),
            ("api/alpha=true,api/all=false", [false, false, true]),
            ("example.com/v1beta1", [true, true, false]),
            ("example.com/v1=false, api/all=true", [false, true, true]),
            ("other.com/v1beta1=true", [true, false, false]),
            ("api/beta=true,example.com/v1beta1=false", [true, false, false]),
        ] {
            let config: RuntimeConfig = text.parse().unwrap();
            assert_eq!(["v1", "v1beta1", "v1alpha1"].map(|v| config.serves("example.com", v)), served, "{text:?}");
        }
    }

    #[test]
    fn what_names_no_version_is_refused() {
        for text in ["beta", "api/beta=maybe", "apps/v1/deployments=false", "example.com/", "=true"] {
            assert_eq!(text.parse::<RuntimeConfig>(), Err(RuntimeConfigError(text.into())));
        }
    }
}
