//! The settings of a server: flags over the configuration file over defaults.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The most that a configuration file may have.
const MAX_FILE_BYTES: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("cannot read the configuration file {path}: {source}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the configuration file {path} is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge { path: PathBuf },
    #[error("the configuration file {path}: {why}")]
    Parse { path: PathBuf, why: String },
}

/// What becomes of the containers when the server ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExit {
    /// They run on; the next server takes them over.
    #[default]
    Keep,
    /// They are stopped; the next server starts them again.
    Stop,
}

/// How packets get to pods of other nodes; the same on all nodes of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PodNetwork {
    /// In UDP datagrams (port 8472); over any network.
    #[default]
    Vxlan,
    /// As they are, by routes; the nodes must be on one link.
    HostGw,
    /// Encrypted, in UDP datagrams; over any network, where all nodes' kernels have WireGuard.
    Wireguard,
}

macro_rules! settings {
    ($($(#[$meta:meta])* $name:ident: $type:ty $(= $default:expr)?, $value:literal;)*) => {
        /// Each is a flag and a key of the configuration file; what is not set has its default.
        #[derive(Args, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
        pub struct Settings {
            $(
                $(#[$meta])*
                #[arg(long, value_name = $value)]
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $name: Option<$type>,
            )*
        }

        impl Settings {
            /// Takes from `other` what is not set here.
            #[must_use]
            pub fn or(self, other: Self) -> Self {
                Self { $($name: self.$name.or(other.$name),)* }
            }
            $($(
                pub fn $name(&self) -> $type {
                    self.$name.clone().unwrap_or_else(|| $default.into())
                }
            )?)*
        }
    };
}

settings! {
    /// State: the store, certificates, images, volumes [default: /var/lib/pintle]
    data_dir: PathBuf = "/var/lib/pintle", "DIR";
    /// Members of an etcd cluster that keeps the state, as `https://ADDRESS:2379,…` [default: the embedded store]
    datastore_endpoints: String, "URLS";
    /// The authority that signed the certificates of etcd's members
    datastore_cafile: PathBuf, "FILE";
    /// The certificate that etcd is shown
    datastore_certfile: PathBuf, "FILE";
    /// The key of that certificate
    datastore_keyfile: PathBuf, "FILE";
    /// What keys in etcd begin with [default: /registry]
    etcd_prefix: String = "/registry", "PREFIX";
    /// Sockets and what does not outlive a reboot [default: /run/pintle]
    run_dir: PathBuf = "/run/pintle", "DIR";
    /// Log files of pods [default: /var/log/pods]
    log_dir: PathBuf = "/var/log/pods", "DIR";
    /// The address that the API server listens on [default: 0.0.0.0]
    bind_address: IpAddr = IpAddr::from([0, 0, 0, 0]), "ADDRESS";
    /// The API server's port [default: 6443]
    https_port: u16 = 6443u16, "PORT";
    /// The kubelet's port [default: 10250]
    kubelet_port: u16 = 10250u16, "PORT";
    /// The name of this node [default: the host's name]
    node_name: String, "NAME";
    /// The address of this node, or one of each family as `IPV4,IPV6` [default: those that its default routes use]
    node_ip: String, "ADDRESSES";
    /// Labels of this node, as `key=value,…`
    node_labels: String, "LABELS";
    /// Addresses of pods: a range, or one of each family, as `10.42.0.0/16,fd00:42::/56` [default: 10.42.0.0/16]
    #[arg(visible_alias = "cluster-cidr", alias = "pod-network-cidr")]
    #[serde(alias = "cluster-cidr", alias = "pod-network-cidr")]
    pod_cidr: String = "10.42.0.0/16", "CIDRS";
    /// How packets get to pods of other nodes: vxlan, host-gw or wireguard [default: vxlan]
    pod_network: PodNetwork = PodNetwork::Vxlan, "HOW";
    /// The UDP port of this node's WireGuard, with --pod-network wireguard [default: 51820]
    wireguard_port: u16 = 51820u16, "PORT";
    /// How long a node may give no sign of life before it is NotReady [default: 50s]
    node_monitor_grace_period: String = "50s", "DURATION";
    /// How long a node must not have been ready before its pods may be made to leave [default: 5s]
    node_monitor_period: String = "5s", "DURATION";
    /// Nodes of a zone per second that pods are made to leave when they aren't ready [default: 0.1]
    node_eviction_rate: String = "0.1", "RATE";
    /// The same in a large zone of which many nodes aren't ready; in a smaller one pods stay [default: 0.01]
    secondary_node_eviction_rate: String = "0.01", "RATE";
    /// From which share of its nodes on many of a zone aren't ready (three at least) [default: 0.55]
    unhealthy_zone_threshold: String = "0.55", "SHARE";
    /// Zones with more nodes than this are large [default: 50]
    large_cluster_size_threshold: u32 = 50u32, "NODES";
    /// How often autoscalers look at what their pods use [default: 15s]
    horizontal_pod_autoscaler_sync_period: String = "15s", "DURATION";
    /// How far use may be from its target before autoscalers act, as a share of it [default: 0.1]
    horizontal_pod_autoscaler_tolerance: String = "0.1", "SHARE";
    /// How long autoscalers wait before they go down, unless they say otherwise [default: 5m]
    horizontal_pod_autoscaler_downscale_stabilization: String = "5m", "DURATION";
    /// For how long after its start what a pod uses of the processor counts only while it is ready [default: 5m]
    horizontal_pod_autoscaler_cpu_initialization_period: String = "5m", "DURATION";
    /// A pod that was not ready within this time of its start has never been ready [default: 30s]
    horizontal_pod_autoscaler_initial_readiness_delay: String = "30s", "DURATION";
    /// How long this node's lease lasts; it is renewed four times as often [default: 40]
    node_lease_duration_seconds: u32 = 40u32, "SECONDS";
    /// The API server that an agent asks, as `https://ADDRESS:6443`; `join` writes it down
    server: String, "URL";
    /// Addresses of services: a range, or one of each family, as `10.43.0.0/16,fd00:43::/112` [default: 10.43.0.0/16]
    service_cidr: String = "10.43.0.0/16", "CIDRS";
    /// Address of the cluster's DNS [default: the tenth of the service addresses]
    cluster_dns: IpAddr, "ADDRESS";
    /// The domain of the cluster [default: cluster.local]
    cluster_domain: String = "cluster.local", "DOMAIN";
    /// Name servers for what is not of the cluster, as `address,…` [default: those of /etc/resolv.conf]
    dns_upstreams: String, "ADDRESSES";
    /// Where to write the administrator's kubeconfig, with mode 0600 [default: /etc/pintle/kubeconfig]
    write_kubeconfig: PathBuf = "/etc/pintle/kubeconfig", "FILE";
    /// The socket of the Docker API [default: docker.sock in the run directory]
    docker_socket: PathBuf, "PATH";
    /// The socket of the container runtime interface (CRI), for crictl and other kubelets [default: cri.sock in the run
    /// directory]
    cri_socket: PathBuf, "PATH";
    /// The runtime that the kubelet runs pods with, as `unix:///run/containerd/containerd.sock` [default: its own]
    container_runtime_endpoint: String, "ENDPOINT";
    /// An address to serve the Docker API on besides its socket, as `tcp://ADDRESS:2376`, with mutual TLS
    docker_host: String, "ADDRESS";
    /// Whether clients of that address must show a certificate: it is not served otherwise [default: true]
    #[arg(num_args = 0..=1, default_missing_value = "true")]
    tlsverify: bool, "BOOL";
    /// The authority that signs the certificates of those clients
    tlscacert: PathBuf, "FILE";
    /// The certificate that they are shown
    tlscert: PathBuf, "FILE";
    /// The key of that certificate
    tlskey: PathBuf, "FILE";
    /// Servers that are asked first for images of docker.io, as `https://HOST[:PORT],…`
    registry_mirror: String, "URLS";
    /// Registries whose certificates need not be right and that may speak plain HTTP besides those of the loopback, as
    /// `HOST[:PORT],10.0.0.0/8,…`
    insecure_registry: String, "REGISTRIES";
    /// The bridge of Docker's default network [default: pindocker0]
    docker_bridge: String = "pindocker0", "NAME";
    /// The cgroup below which those of pods are made [default: /]
    cgroup_root: String = "/", "PATH";
    /// The bridge that pods are connected to [default: pintle0]
    bridge: String = "pintle0", "NAME";
    /// A file with an audit policy; nothing is audited without
    audit_policy_file: PathBuf, "FILE";
    /// Where audit events are written; `-` is standard output
    audit_log_path: PathBuf, "PATH";
    /// How audit events are written: `batch`, off the way of requests, or `blocking` [default: batch]
    audit_log_mode: String = "batch", "MODE";
    /// Days that rotated audit logs are kept; 0 is for ever [default: 0]
    audit_log_maxage: u32 = 0u32, "DAYS";
    /// Rotated audit logs that are kept; 0 is all [default: 0]
    audit_log_maxbackup: u32 = 0u32, "NUMBER";
    /// The size at which the audit log is rotated, in megabytes; 0 is never [default: 100]
    audit_log_maxsize: u32 = 100u32, "MEGABYTES";
    /// A kubeconfig that names the server to send audit events to
    audit_webhook_config_file: PathBuf, "FILE";
    /// Admission plugins to turn on besides those that are on by default, as `NAME,…`
    enable_admission_plugins: String, "NAMES";
    /// Admission plugins to turn off, as `NAME,…`
    disable_admission_plugins: String, "NAMES";
    /// Whether Services may take over addresses by `externalIPs`; the admission plugin DenyServiceExternalIPs refuses
    /// them otherwise [default: false]
    #[arg(num_args = 0..=1, default_missing_value = "true")]
    allow_service_external_ips: bool, "BOOL";
    /// A file with an AdmissionConfiguration
    admission_control_config_file: PathBuf, "FILE";
    /// A file that says which resources are encrypted in the store, and with which keys
    encryption_provider_config: PathBuf, "FILE";
    /// Whether changes of that file count without a restart: it is looked at every minute [default: false]
    #[arg(num_args = 0..=1, default_missing_value = "true")]
    encryption_provider_config_automatic_reload: bool, "BOOL";
    /// A file with a KubeSchedulerConfiguration: profiles, plugins and their arguments, extenders
    scheduler_config: PathBuf, "FILE";
    /// Reading requests that are answered at a time [default: 400]
    max_requests_inflight: u32 = 400u32, "NUMBER";
    /// Writing requests that are answered at a time [default: 200]
    max_mutating_requests_inflight: u32 = 200u32, "NUMBER";
    /// Whether the API server has something under /debug/pprof/ for those who may read it [default: true]
    profiling: bool, "BOOL";
    /// Remember one allocation in so many bytes for /debug/pprof/heap, such as 524288; 0 is none [default: 0]
    heap_profile_rate: usize = 0usize, "BYTES";
    /// Versions of kinds to serve or not, as `GROUP/VERSION=true,api/beta=false,…` [default: the stable ones]
    runtime_config: String, "VERSIONS";
    /// How long events are kept [default: 1h]
    event_ttl: String = "1h", "DURATION";
    /// Features that are off by default, as `NAME=true,…`; the one there is: CBORServingAndStorage
    feature_gates: String, "GATES";
    /// A directory (or file) of pods that this node runs by itself, with mirrors in the API
    pod_manifest_path: PathBuf, "PATH";
    /// What must be left of this node: below it pods are evicted [default:
    /// memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,imagefs.available<15%,imagefs.inodesFree<5%; `pintle up`
    /// and `pintle dev` leave 1Gi of disks instead]
    eviction_hard: String, "SIGNAL<VALUE,…";
    /// What should be left of it: below it for a while (--eviction-soft-grace-period) pods are evicted, too
    eviction_soft: String, "SIGNAL<VALUE,…";
    /// How long that must be so, for each of those signals
    eviction_soft_grace_period: String, "SIGNAL=DURATION,…";
    /// The most seconds that a pod gets to end which is evicted for such a threshold [default: 0]
    eviction_max_pod_grace_period: u32 = 0u32, "SECONDS";
    /// How much more than a threshold is won back once pods are evicted
    eviction_minimum_reclaim: String, "SIGNAL=VALUE,…";
    /// The most that the delay before a container is started again grows to, 1s to 5m [default: 5m]
    max_container_restart_period: String = "5m", "DURATION";
    /// Percent of the images' disk in use from which on those that nobody uses are deleted; 100 is never [default: 85]
    image_gc_high_threshold: u8 = 85u8, "PERCENT";
    /// Percent of it in use until which they are deleted [default: 80]
    image_gc_low_threshold: u8 = 80u8, "PERCENT";
    /// Whether containers of guaranteed pods get processors of their own: `none` or `static` [default: none]
    cpu_manager_policy: String, "POLICY";
    /// How: `full-pcpus-only=true,strict-cpu-reservation=true`
    cpu_manager_policy_options: String, "OPTIONS";
    /// Processors that pods get none of for themselves, as `0-1,8`; in place of the reserved amounts
    reserved_cpus: String, "CPUS";
    /// What of this node is kept for Kubernetes' own parts, as `cpu=500m,memory=1Gi`
    kube_reserved: String, "RESOURCES";
    /// What of this node is kept for the rest of its system
    system_reserved: String, "RESOURCES";
    /// Whether containers of guaranteed pods get memory of certain NUMA nodes: `None` or `Static` [default: None]
    memory_manager_policy: String, "POLICY";
    /// Memory of each NUMA node that pods don't get then, as `0:memory=1Gi;1:memory=1Gi`
    reserved_memory: String, "NODES";
    /// How far what a container gets must be of the same NUMA nodes: `none`, `best-effort`, `restricted` or
    /// `single-numa-node` [default: none]
    topology_manager_policy: String, "POLICY";
    /// Whether that is said of each `container` or of the `pod` [default: container]
    topology_manager_scope: String, "SCOPE";
    /// The folder on whose socket device plugins register [default: /var/lib/kubelet/device-plugins, where plugins look
    /// for it, or one in the data directory when that is not the default one]
    device_plugin_dir: PathBuf, "DIR";
    /// The time that pods get before this machine ends, which logind then waits with; 0 is none [default: 0s]
    shutdown_grace_period: String = "0s", "DURATION";
    /// The part of that time that is left to critical pods [default: 0s]
    shutdown_grace_period_critical_pods: String = "0s", "DURATION";
    /// In place of both: seconds for pods of each priority and above, as `0=60,2000000000=10`
    shutdown_grace_period_by_pod_priority: String, "PRIORITY=SECONDS,…";
    /// A file that says which programs know credentials for which images
    image_credential_provider_config: PathBuf, "FILE";
    /// The folder of those programs
    image_credential_provider_bin_dir: PathBuf, "DIR";
    /// Sysctls that pods may set besides the safe ones; one that ends in `*` is a prefix
    allowed_unsafe_sysctls: String, "NAME,…";
    /// A folder of CNI configurations, the first of which connects pods in the place of pintle's bridge
    cni_conf_dir: PathBuf, "PATH";
    /// Folders of CNI plugins, separated by colons [default: /opt/cni/bin:/usr/lib/cni]
    cni_bin_dir: String = "/opt/cni/bin:/usr/lib/cni", "PATHS";
    /// The most pods that this node runs [default: 110]
    max_pods: u32 = 110u32, "NUMBER";
    /// A structured AuthenticationConfiguration; read again when it changes
    authentication_config: PathBuf, "FILE";
    /// A structured AuthorizationConfiguration
    authorization_config: PathBuf, "FILE";
    /// Who decides what users may, in order: Node, RBAC, Webhook, AlwaysAllow, AlwaysDeny [default: Node,RBAC]
    authorization_mode: String, "MODES";
    /// The kubeconfig of the server that the mode Webhook asks
    authorization_webhook_config_file: PathBuf, "FILE";
    /// The version of the reviews that it is asked with: v1 or v1beta1 [default: v1beta1]
    authorization_webhook_version: String, "VERSION";
    /// How long its approvals count [default: 5m]
    authorization_webhook_cache_authorized_ttl: String, "DURATION";
    /// How long its refusals count [default: 30s]
    authorization_webhook_cache_unauthorized_ttl: String, "DURATION";
    /// The kubeconfig of a server that knows bearer tokens
    authentication_token_webhook_config_file: PathBuf, "FILE";
    /// The version of the reviews that it is asked with: v1 or v1beta1 [default: v1beta1]
    authentication_token_webhook_version: String, "VERSION";
    /// How long its answers count [default: 2m]
    authentication_token_webhook_cache_ttl: String, "DURATION";
    /// Whether requests without credentials go on as system:anonymous [default: true]
    anonymous_auth: bool, "BOOL";
    /// Bearer tokens, as lines of `token,user,uid,"group,…"`
    token_auth_file: PathBuf, "FILE";
    /// Whether secrets of type bootstrap.kubernetes.io/token let nodes join [default: true]
    enable_bootstrap_token_auth: bool, "BOOL";
    /// The OpenID Connect issuer whose tokens are taken, as `https://…`
    oidc_issuer_url: String, "URL";
    /// The audience of its tokens
    oidc_client_id: String, "ID";
    /// The claim that names users [default: sub]
    oidc_username_claim: String, "CLAIM";
    /// What these names begin with; `-` is nothing [default: the issuer's address and #]
    oidc_username_prefix: String, "PREFIX";
    /// The claim that names groups
    oidc_groups_claim: String, "CLAIM";
    /// What these names begin with
    oidc_groups_prefix: String, "PREFIX";
    /// Claims that tokens must have, as `key=value,…`
    oidc_required_claim: String, "CLAIMS";
    /// Algorithms of its signatures [default: RS256]
    oidc_signing_algs: String, "ALGORITHMS";
    /// The authority of its certificate [default: the host's]
    oidc_ca_file: PathBuf, "FILE";
    /// The authority of the certificates of front proxies, who say in headers who asks
    requestheader_client_ca_file: PathBuf, "FILE";
    /// The common names that they may have, as `name,…` [default: any]
    requestheader_allowed_names: String, "NAMES";
    /// Their headers for user names [default: X-Remote-User]
    requestheader_username_headers: String, "HEADERS";
    /// Their headers for user ids [default: X-Remote-Uid]
    requestheader_uid_headers: String, "HEADERS";
    /// Their headers for groups [default: X-Remote-Group]
    requestheader_group_headers: String, "HEADERS";
    /// What their headers for further fields begin with [default: X-Remote-Extra-]
    requestheader_extra_headers_prefix: String, "PREFIXES";
    /// The private key that signs service account tokens [default: one of the cluster's own]
    service_account_signing_key_file: PathBuf, "FILE";
    /// Files of further keys that such tokens may be signed with, as `file,…`
    service_account_key_file: String, "FILES";
    /// The issuers of such tokens, as `url,…`; the first issues [default: https://kubernetes.default.svc.DOMAIN]
    service_account_issuer: String, "URLS";
    /// The longest time that such a token may be asked for
    service_account_max_token_expiration: String, "DURATION";
    /// Whether tokens of pods work a year for clients that don't read them again [default: true]
    service_account_extend_token_expiration: bool, "BOOL";
    /// The audiences that this server is [default: the first issuer]
    api_audiences: String, "AUDIENCES";
    /// What becomes of containers when the server ends [default: keep]
    on_exit: OnExit = OnExit::Keep, "WHAT";
}

/// Read when no file is named, and only then allowed to be absent.
const DEFAULT_FILE: &str = "/etc/pintle/config.yaml";

impl Settings {
    /// These flags over the named configuration file, or over the default one where it exists.
    ///
    /// # Errors
    /// When the file cannot be read, is no YAML, or has a key that does not exist.
    pub(crate) fn with_file(self, file: Option<&Path>) -> Result<Self, SettingsError> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        match std::fs::metadata(path) {
            Err(e) if file.is_none() && e.kind() == std::io::ErrorKind::NotFound => return Ok(self),
            Err(source) => return Err(SettingsError::Read { path: path.into(), source }),
            Ok(meta) if meta.len() > MAX_FILE_BYTES => return Err(SettingsError::TooLarge { path: path.into() }),
            Ok(_) => {}
        }
        let text = std::fs::read_to_string(path).map_err(|source| SettingsError::Read { path: path.into(), source })?;
        Ok(self.or(parse(&text).map_err(|why| SettingsError::Parse { path: path.into(), why })?))
    }

    /// The same over a file that a program wrote; a file that is not there has nothing.
    ///
    /// # Errors
    /// As [`Self::with_file`].
    pub fn over_saved(self, file: &Path) -> Result<Self, SettingsError> {
        if file.exists() { self.with_file(Some(file)) } else { Ok(self) }
    }

    /// The text of a configuration file with these settings.
    ///
    /// # Errors
    /// When a path is no UTF-8.
    pub fn to_text(&self) -> Result<String, SettingsError> {
        serde_yaml_ng::to_string(self)
            .map_err(|error| SettingsError::Parse { path: "(to be written)".into(), why: error.to_string() })
    }

    pub fn docker_socket(&self) -> PathBuf {
        self.docker_socket.clone().unwrap_or_else(|| self.run_dir().join("docker.sock"))
    }

    pub fn cri_socket(&self) -> PathBuf {
        self.cri_socket.clone().unwrap_or_else(|| self.run_dir().join("cri.sock"))
    }
}

fn parse(text: &str) -> Result<Settings, String> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Settings::default());
    }
    serde_yaml_ng::from_str(text).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file = parse("https-port: 7000\nnode-name: from-file\non-exit: stop\n").unwrap();
        let flags = Settings { node_name: Some("from-flag".into()), ..Settings::default() };
        let all = flags.or(file);
        assert_eq!(
            (all.https_port(), all.node_name.as_deref(), all.on_exit()),
            (7000, Some("from-flag"), OnExit::Stop)
        );
        assert_eq!(all.kubelet_port(), 10250);
        assert_eq!(all.docker_socket(), Path::new("/run/pintle/docker.sock"));
        assert_eq!(parse("# nothing\n\n").unwrap(), Settings::default());
    }

    #[test]
    fn what_is_written_is_read_again() {
        let settings = Settings {
            node_name: Some("n".into()),
            pod_network: Some(PodNetwork::HostGw),
            https_port: Some(7000),
            ..Settings::default()
        };
        assert_eq!(parse(&settings.to_text().unwrap()).unwrap(), settings);
        assert_eq!(parse(&Settings::default().to_text().unwrap()).unwrap(), Settings::default());
    }

    #[test]
    fn a_wrong_key_or_value_is_named() {
        assert!(parse("htps-port: 1").unwrap_err().contains("htps-port"));
        assert!(parse("https-port: x").unwrap_err().contains("https-port"));
        let missing = Settings::default().with_file(Some(Path::new("/nonexistent/x.yaml"))).unwrap_err();
        assert!(missing.to_string().contains("/nonexistent/x.yaml"));
    }
}
