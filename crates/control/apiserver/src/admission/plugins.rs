//! The admission plugins by upstream's names and in upstream's order, and the settings that turn them on and off.
//!
//! Source: `pkg/kubeapiserver/options/plugins.go` of Kubernetes.

use pintle_admission::pod_security;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// Whether a plugin works when nobody says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Usual {
    On,
    Off,
    /// Known by name, but not there.
    Missing,
}

macro_rules! plugins {
    ($($name:ident $default:ident,)*) => {
        /// A plugin.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Plugin { $($name,)* }

        const ALL: &[(Plugin, &str, Usual)] = &[$((Plugin::$name, stringify!($name), Usual::$default),)*];
    };
}

// NodeRestriction is off at upstream until it is asked for, which every installer does.
plugins! {
    AlwaysAdmit Off,
    NamespaceAutoProvision Missing,
    NamespaceLifecycle On,
    NamespaceExists Off,
    LimitPodHardAntiAffinityTopology Off,
    LimitRanger On,
    ServiceAccount On,
    NodeRestriction On,
    TaintNodesByCondition On,
    AlwaysPullImages Off,
    ImagePolicyWebhook Missing,
    PodSecurity On,
    PodNodeSelector Missing,
    Priority On,
    DefaultTolerationSeconds On,
    PodTolerationRestriction Missing,
    EventRateLimit Missing,
    ExtendedResourceToleration Off,
    DefaultStorageClass On,
    StorageObjectInUseProtection On,
    OwnerReferencesPermissionEnforcement Missing,
    PersistentVolumeClaimResize On,
    RuntimeClass On,
    CertificateApproval On,
    CertificateSigning On,
    ClusterTrustBundleAttest On,
    CertificateSubjectRestriction On,
    DefaultIngressClass On,
    DenyServiceExternalIPs Off,
    PodTopologyLabels On,
    MutatingAdmissionPolicy On,
    MutatingAdmissionWebhook On,
    ValidatingAdmissionPolicy On,
    ValidatingAdmissionWebhook On,
    ResourceQuota On,
    AlwaysDeny Off,
}

/// How many plugins there are.
pub(super) const COUNT: usize = ALL.len();

impl Plugin {
    /// All of them, in the order in which they are asked.
    pub fn all() -> impl Iterator<Item = Self> {
        ALL.iter().map(|(plugin, ..)| *plugin)
    }

    pub fn name(self) -> &'static str {
        ALL[self as usize].1
    }

    fn bit(self) -> u64 {
        1 << (self as u64)
    }

    fn named(name: &str) -> Option<(Self, Usual)> {
        ALL.iter().find(|(_, known, _)| *known == name).map(|(plugin, _, default)| (*plugin, *default))
    }
}

/// Why the settings of admission can't be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionSettingsError {
    #[error("{flag} plugin {name:?} is unknown")]
    Unknown { flag: &'static str, name: String },
    #[error("the admission plugin {name:?} is not supported by this server")]
    Missing { name: String },
    #[error("[{names}] in enable-admission-plugins and disable-admission-plugins overlapped")]
    Overlap { names: String },
    #[error("the admission configuration {path}: {why}")]
    File { path: String, why: String },
}

/// Which plugins judge writes, and what they are told.
#[derive(Clone, Debug)]
pub struct AdmissionSettings {
    enabled: u64,
    pub(super) pod_security: pod_security::Configuration,
}

impl Default for AdmissionSettings {
    fn default() -> Self {
        let on = ALL.iter().filter(|(_, _, default)| *default == Usual::On);
        Self {
            enabled: on.map(|(plugin, ..)| plugin.bit()).sum(),
            pod_security: pod_security::Configuration::default(),
        }
    }
}

/// The most that a configuration file may have.
const MAX_FILE_BYTES: usize = 1 << 20;

impl AdmissionSettings {
    /// What `--enable-admission-plugins` and `--disable-admission-plugins` say (names, over the defaults), and the file
    /// of `--admission-control-config-file`, an `AdmissionConfiguration`.
    pub fn new(enable: &[String], disable: &[String], file: Option<&Path>) -> Result<Self, AdmissionSettingsError> {
        let mut settings = Self::default();
        let known = |flag: &'static str, name: &String| {
            Plugin::named(name).ok_or_else(|| AdmissionSettingsError::Unknown { flag, name: name.clone() })
        };
        for name in enable {
            let (plugin, default) = known("enable-admission-plugins", name)?;
            if default == Usual::Missing {
                return Err(AdmissionSettingsError::Missing { name: name.clone() });
            }
            settings.enabled |= plugin.bit();
        }
        for name in disable {
            settings.enabled &= !known("disable-admission-plugins", name)?.0.bit();
        }
        let (enable, disable): (BTreeSet<_>, BTreeSet<_>) = (enable.iter().collect(), disable.iter().collect());
        let both: Vec<&str> = enable.intersection(&disable).map(|name| name.as_str()).collect();
        if !both.is_empty() {
            return Err(AdmissionSettingsError::Overlap { names: both.join(" ") });
        }
        if let Some(file) = file {
            settings
                .read(file)
                .map_err(|why| AdmissionSettingsError::File { path: file.display().to_string(), why })?;
        }
        Ok(settings)
    }

    pub(super) fn is_enabled(&self, plugin: Plugin) -> bool {
        self.enabled & plugin.bit() != 0
    }

    fn read(&mut self, file: &Path) -> Result<(), String> {
        let value = read_yaml(file)?;
        let version = value["apiVersion"].as_str().unwrap_or_default();
        if value["kind"] != "AdmissionConfiguration" || !version.starts_with("apiserver.config.k8s.io/") {
            return Err(format!(
                "it is no AdmissionConfiguration of apiserver.config.k8s.io but {} {version:?}",
                value["kind"]
            ));
        }
        for plugin in value["plugins"].as_array().into_iter().flatten() {
            let name = plugin["name"].as_str().unwrap_or_default();
            // Paths are relative to the file that names them.
            let own = match plugin["path"].as_str().filter(|path| !path.is_empty()) {
                Some(path) => read_yaml(&file.parent().unwrap_or(Path::new(".")).join(path))?,
                None => plugin["configuration"].clone(),
            };
            match Plugin::named(name) {
                Some((Plugin::PodSecurity, _)) => {
                    let parsed = pod_security::Configuration::parse(&own);
                    self.pod_security = parsed.map_err(|why| format!("plugin PodSecurity: {why}"))?;
                }
                // Upstream's other plugins that read a configuration are not among those here.
                Some((_, default)) if default != Usual::Missing => {}
                _ => return Err(format!("the admission plugin {name:?} is not supported by this server")),
            }
        }
        Ok(())
    }
}

fn read_yaml(file: &Path) -> Result<Value, String> {
    let bytes = std::fs::read(file).map_err(|error| format!("read {}: {error}", file.display()))?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(format!("{} is larger than {MAX_FILE_BYTES} bytes", file.display()));
    }
    let decoded = pintle_schema::decode::yaml(&bytes, pintle_schema::decode::Limits::default());
    decoded.map(|decoded| decoded.value).map_err(|error| format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(enable: &[&str], disable: &[&str]) -> Result<AdmissionSettings, String> {
        let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        AdmissionSettings::new(&texts(enable), &texts(disable), None).map_err(|error| error.to_string())
    }

    #[test]
    fn plugins_are_named_as_upstream_names_them() {
        let on = settings(&["AlwaysPullImages"], &["LimitRanger"]).unwrap();
        assert!(on.is_enabled(Plugin::AlwaysPullImages) && !on.is_enabled(Plugin::LimitRanger));
        assert!(on.is_enabled(Plugin::NodeRestriction) && !on.is_enabled(Plugin::AlwaysDeny));
        let cases = [
            (settings(&["Nothing"], &[]), "enable-admission-plugins plugin \"Nothing\" is unknown"),
            (settings(&[], &["x"]), "disable-admission-plugins plugin \"x\" is unknown"),
            (
                settings(&["EventRateLimit"], &[]),
                "the admission plugin \"EventRateLimit\" is not supported by this server",
            ),
            (
                settings(&["Priority", "LimitRanger"], &["LimitRanger", "Priority"]),
                "[LimitRanger Priority] in enable-admission-plugins and disable-admission-plugins overlapped",
            ),
        ];
        for (result, expected) in cases {
            assert_eq!(result.unwrap_err(), expected);
        }
    }

    #[test]
    fn a_file_configures_pod_security() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write(
            "own.yaml",
            "apiVersion: pod-security.admission.config.k8s.io/v1\nkind: PodSecurityConfiguration\n\
             defaults: {enforce: restricted}\n",
        );
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\n";
        write("all.yaml", &format!("{head}plugins: [{{name: PodSecurity, path: own.yaml}}]\n"));
        let read = |name: &str| AdmissionSettings::new(&[], &[], Some(&dir.path().join(name)));
        assert_ne!(read("all.yaml").unwrap().pod_security, pod_security::Configuration::default());
        write("wrong.yaml", &format!("{head}plugins: [{{name: PodSecurity, configuration: {{kind: X}}}}]\n"));
        let why = read("wrong.yaml").unwrap_err().to_string();
        assert!(why.ends_with("plugin PodSecurity: no kind \"X\" is registered for version \"\""), "{why}");
    }
}
