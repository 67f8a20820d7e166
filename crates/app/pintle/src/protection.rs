//! The settings that protect the API server and what it keeps: admission, audit, encryption at rest, limits.

use anyhow::{Context, Result, bail, ensure};
use pintle_apiserver::{AdmissionSettings, AuditConfig, AuditLogOptions, RuntimeConfig};
use pintle_cli::Settings;
use pintle_kinds::Table;
use pintle_store::sealed::{Configuration, Rule};
use pintle_store::{SealedStore, Store};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The plugin that keeps Services from taking over addresses that are not their own (CVE-2020-8554).
const DENY_EXTERNAL_ADDRESSES: &str = "DenyServiceExternalIPs";

/// The store with what the settings say encrypted; the store itself when they say nothing. `tasks` look after changes of
/// the file until `stop`, where the settings say so.
pub(crate) fn seal(
    store: Arc<dyn Store>,
    settings: &Settings,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Arc<dyn Store>> {
    let Some(path) = settings.encryption_provider_config.clone() else { return Ok(store) };
    let read = || -> Result<(String, Configuration)> {
        let text = std::fs::read_to_string(&path)?;
        let configuration = Configuration::parse(&text)?;
        Ok((text, configuration))
    };
    let (text, configuration) =
        read().with_context(|| format!("read the encryption configuration {}", path.display()))?;
    let sealed = Arc::new(SealedStore::new(store, rules(&configuration)));
    if settings.encryption_provider_config_automatic_reload.unwrap_or(false) {
        let (sealed, stop) = (Arc::clone(&sealed), stop.clone());
        tasks.spawn(async move { stop.run_until_cancelled(sealed.follow(&path, text, rules)).await });
    }
    Ok(sealed)
}

fn rules(configuration: &Configuration) -> Vec<Rule> {
    let table = Table::builtin();
    configuration.rules(table.iter().map(|def| (&*def.group, &*def.resource, &*def.storage.key_prefix)))
}

/// Tells the API server what is audited, and how much it does at a time.
pub(crate) fn configure(config: &mut pintle_apiserver::Config, settings: &Settings) -> Result<()> {
    config.max_in_flight = settings.max_requests_inflight() as usize;
    config.max_mutating_in_flight = settings.max_mutating_requests_inflight() as usize;
    config.profiling = settings.profiling.unwrap_or(true);
    config.audit = audit(settings)?;
    let names = |list: &Option<String>| -> Vec<String> {
        let names = list.as_deref().unwrap_or_default().split(',').map(str::trim);
        names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
    };
    let (mut enable, disable) = (names(&settings.enable_admission_plugins), names(&settings.disable_admission_plugins));
    let says = |list: &[String]| list.iter().any(|name| name == DENY_EXTERNAL_ADDRESSES);
    if !settings.allow_service_external_ips.unwrap_or(false) && !says(&enable) && !says(&disable) {
        enable.push(DENY_EXTERNAL_ADDRESSES.to_owned());
    }
    config.admission = AdmissionSettings::new(&enable, &disable, settings.admission_control_config_file.as_deref())?;
    config.runtime_config = runtime_config(settings.runtime_config.as_deref().unwrap_or_default())?;
    config.cbor = serves_cbor(settings.feature_gates.as_deref().unwrap_or_default())?;
    Ok(())
}

/// Reads which versions are served; one that is not there is refused rather than promised.
fn runtime_config(text: &str) -> Result<RuntimeConfig> {
    let config = text.parse::<RuntimeConfig>().context("--runtime-config")?;
    let table = Table::builtin();
    for (group, version) in config.named() {
        let known = table.iter().any(|def| def.group == group && def.version == version);
        ensure!(known, "--runtime-config: there is no version {version} of a group {group:?}");
    }
    Ok(config)
}

/// Reads the gates; one that is not known is refused rather than promised.
fn serves_cbor(gates: &str) -> Result<bool> {
    let mut cbor = false;
    for gate in gates.split(',').map(str::trim).filter(|gate| !gate.is_empty()) {
        match gate.split_once('=') {
            Some(("CBORServingAndStorage", value)) => {
                cbor =
                    value.parse::<bool>().with_context(|| format!("--feature-gates {gate:?}: it is true or false"))?;
            }
            Some((name, _)) => bail!("--feature-gates: unrecognized feature gate: {name}"),
            None => bail!("--feature-gates: missing bool value for {gate}"),
        }
    }
    Ok(cbor)
}

fn audit(settings: &Settings) -> Result<Option<AuditConfig>> {
    let Some(policy_file) = settings.audit_policy_file.clone() else {
        // As upstream: a log without a policy is no mistake, but nothing is written to it.
        return Ok(None);
    };
    let blocking = match settings.audit_log_mode().as_str() {
        "batch" => false,
        "blocking" | "blocking-strict" => true,
        other => bail!("--audit-log-mode {other:?}: it is batch or blocking"),
    };
    let log = settings.audit_log_path.clone().map(|path| AuditLogOptions {
        path,
        max_age_days: settings.audit_log_maxage(),
        max_backups: settings.audit_log_maxbackup() as usize,
        max_size_mib: u64::from(settings.audit_log_maxsize()),
        blocking,
        ..AuditLogOptions::default()
    });
    Ok(Some(AuditConfig { policy_file, log, webhook: settings.audit_webhook_config_file.clone() }))
}

#[cfg(test)]
mod tests {
    use super::{runtime_config, serves_cbor};

    #[test]
    fn unknown_versions_are_refused() {
        assert!(runtime_config("storagemigration.k8s.io/v1beta1=true, api/beta=false").is_ok());
        let refused = |text: &str| format!("{:#}", runtime_config(text).unwrap_err());
        let unknown = "--runtime-config: there is no version v1beta9 of a group \"apps\"";
        assert_eq!(refused("apps/v1beta9=true"), unknown);
        assert!(refused("much").starts_with("--runtime-config: \"much\" is no version"));
    }

    #[test]
    fn unknown_gates_are_refused() {
        assert!(!serves_cbor("").unwrap());
        assert!(serves_cbor("CBORServingAndStorage=true").unwrap());
        assert!(!serves_cbor("CBORServingAndStorage=true, CBORServingAndStorage=false").unwrap());
        let refused = |gates: &str| serves_cbor(gates).unwrap_err().to_string();
        assert_eq!(refused("Magic=true"), "--feature-gates: unrecognized feature gate: Magic");
        assert_eq!(refused("CBORServingAndStorage"), "--feature-gates: missing bool value for CBORServingAndStorage");
        assert!(serves_cbor("CBORServingAndStorage=maybe").is_err());
    }
}
