//! The cluster's certificates and keys, and the administrator's kubeconfig.
//!
//! Everything is made once and kept in `pki/` of the data directory. A certificate that has little time left is made
//! anew by whoever looks next: a start, or the server itself, which looks now and then and when it is told to.

use crate::cluster::{Cluster, private_directory};
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use pintle_clock::{Clock, Timestamp};
use pintle_pki::{CertificateAuthority, Identity, LiveIdentity, SigningKey};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The names of certificates, and of their files.
pub(crate) const ADMINISTRATOR: &str = "admin";
pub(crate) const API_SERVER: &str = "apiserver";
pub(crate) const KUBELET_CLIENT: &str = "apiserver-kubelet-client";
pub(crate) const FRONT_PROXY: &str = "front-proxy-client";
pub(crate) const KUBELET_SERVER: &str = "kubelet";
/// The names of authorities, and of their files.
pub(crate) const AUTHORITY: &str = "ca";
pub(crate) const FRONT_PROXY_AUTHORITY: &str = "front-proxy-ca";
/// The name in the certificate that other API servers know this one by.
pub(crate) const PROXY_NAME: &str = FRONT_PROXY;

/// Everything that proves who is who.
pub(crate) struct Credentials {
    pub(crate) authority: Arc<CertificateAuthority>,
    pub(crate) api_server: Arc<LiveIdentity>,
    /// What the API server shows to kubelets.
    pub(crate) kubelet_client: Arc<LiveIdentity>,
    pub(crate) kubelet_server: Arc<LiveIdentity>,
    pub(crate) administrator: Arc<LiveIdentity>,
    /// What the API server shows to other API servers that it passes requests to.
    pub(crate) front_proxy: Arc<Identity>,
    /// The authority of that, PEM.
    pub(crate) front_proxy_authority: String,
    pub(crate) token_key: Arc<SigningKey>,
}

/// A certificate that a server has.
pub(crate) struct Wanted {
    pub(crate) name: &'static str,
    /// What it is, as kubeadm says it.
    pub(crate) what: &'static str,
    pub(crate) authority: &'static str,
    subject: Subject,
}

enum Subject {
    /// DNS names and addresses.
    Server(Vec<String>),
    Client {
        name: &'static str,
        masters: bool,
    },
}

const MASTERS: [&str; 1] = ["system:masters"];

impl Wanted {
    fn server(name: &'static str, what: &'static str, names: Vec<String>) -> Self {
        Self { name, what, authority: AUTHORITY, subject: Subject::Server(names) }
    }

    fn client(name: &'static str, what: &'static str, user: &'static str) -> Self {
        let subject = Subject::Client { name: user, masters: true };
        Self { name, what, authority: AUTHORITY, subject }
    }

    /// The one on disk; made when it is missing, runs out, or is not what it should be.
    fn load(&self, authority: &CertificateAuthority, directory: &Path, now: Timestamp) -> Result<Identity> {
        Ok(match &self.subject {
            Subject::Server(names) => authority.server_in(directory, self.name, names, now)?,
            Subject::Client { name, masters } => {
                let organizations: &[&str] = if *masters { &MASTERS } else { &[] };
                authority.client_in(directory, self.name, name, organizations, now)?
            }
        })
    }

    /// A new one, in the place of the old.
    pub(crate) fn renew(&self, authority: &CertificateAuthority, directory: &Path, now: Timestamp) -> Result<()> {
        let fresh = match &self.subject {
            Subject::Server(names) => authority.issue_server(self.name, names, now)?,
            Subject::Client { name, masters } => {
                let organizations: &[&str] = if *masters { &MASTERS } else { &[] };
                authority.issue_client(name, organizations, now)?
            }
        };
        Ok(fresh.save(directory, self.name)?)
    }

    /// The names that a server's certificate is for.
    pub(crate) fn names(&self) -> &[String] {
        match &self.subject {
            Subject::Server(names) => names,
            Subject::Client { .. } => &[],
        }
    }
}

/// All certificates of a server, in the order of their names.
pub(crate) fn wanted(cluster: &Cluster) -> Vec<Wanted> {
    let front_proxy = Wanted {
        name: FRONT_PROXY,
        what: "certificate for the front proxy client",
        authority: FRONT_PROXY_AUTHORITY,
        // An authority of its own: whoever shows its certificates is believed who they speak for.
        subject: Subject::Client { name: PROXY_NAME, masters: false },
    };
    let administrator = "certificate embedded in the kubeconfig file for the admin to use";
    vec![
        Wanted::client(ADMINISTRATOR, administrator, "kubernetes-admin"),
        Wanted::server(API_SERVER, "certificate for serving the Kubernetes API", server_names(cluster)),
        Wanted::client(
            KUBELET_CLIENT,
            "certificate for the API server to connect to kubelet",
            "kube-apiserver-kubelet-client",
        ),
        front_proxy,
        Wanted::server(KUBELET_SERVER, "certificate for serving the kubelet's API", node_names(cluster)),
    ]
}

/// What is on disk, made where it was missing.
struct Loaded {
    authority: CertificateAuthority,
    front_proxy_authority: CertificateAuthority,
    identities: Vec<(&'static str, Identity)>,
}

impl Loaded {
    fn load(cluster: &Cluster, now: Timestamp) -> Result<Self> {
        let directory = directory(cluster);
        private_directory(&directory)?;
        let authority = CertificateAuthority::load_or_create(&directory, AUTHORITY, now)?;
        let front_proxy_authority = CertificateAuthority::load_or_create(&directory, FRONT_PROXY_AUTHORITY, now)?;
        let load = |wanted: Wanted| {
            let by = if wanted.authority == AUTHORITY { &authority } else { &front_proxy_authority };
            Ok((wanted.name, wanted.load(by, &directory, now)?))
        };
        let identities = wanted(cluster).into_iter().map(load).collect::<Result<Vec<_>>>()?;
        Ok(Self { authority, front_proxy_authority, identities })
    }

    fn get(&self, name: &str) -> Result<Identity> {
        let found = self.identities.iter().find(|(known, _)| *known == name);
        found.map(|(_, identity)| identity.clone()).with_context(|| format!("there is no certificate {name}"))
    }
}

/// Where they are.
pub(crate) fn directory(cluster: &Cluster) -> PathBuf {
    cluster.data("pki")
}

impl Credentials {
    pub(crate) fn load_or_create(cluster: &Cluster, clock: &dyn Clock) -> Result<Self> {
        let loaded = Loaded::load(cluster, clock.now())?;
        let live = |name: &str| -> Result<Arc<LiveIdentity>> { Ok(LiveIdentity::new(loaded.get(name)?)?) };
        Ok(Self {
            api_server: live(API_SERVER)?,
            kubelet_client: live(KUBELET_CLIENT)?,
            kubelet_server: live(KUBELET_SERVER)?,
            administrator: live(ADMINISTRATOR)?,
            front_proxy: Arc::new(loaded.get(FRONT_PROXY)?),
            front_proxy_authority: loaded.front_proxy_authority.certificate_pem().to_owned(),
            token_key: Arc::new(SigningKey::load_or_create(&directory(cluster), "service-account")?),
            authority: Arc::new(loaded.authority),
        })
    }

    /// Shows what is on disk from now on, after making anew what has little time left. The names of what changed.
    /// The front proxy's certificate is taken at the next start only.
    pub(crate) fn refresh(&self, cluster: &Cluster, clock: &dyn Clock) -> Result<Vec<&'static str>> {
        let loaded = Loaded::load(cluster, clock.now())?;
        let mut changed = Vec::new();
        for (name, live) in [
            (API_SERVER, &self.api_server),
            (KUBELET_CLIENT, &self.kubelet_client),
            (KUBELET_SERVER, &self.kubelet_server),
            (ADMINISTRATOR, &self.administrator),
        ] {
            let found = loaded.get(name)?;
            if found.certificate_pem != live.identity().certificate_pem {
                live.replace(found)?;
                changed.push(name);
            }
        }
        if changed.contains(&ADMINISTRATOR) {
            self.write_kubeconfig(&cluster.settings.write_kubeconfig(), &cluster.local_url())?;
        }
        Ok(changed)
    }

    /// Writes the administrator's kubeconfig, readable by its owner only.
    pub(crate) fn write_kubeconfig(&self, path: &Path, url: &str) -> Result<()> {
        write_kubeconfig(path, url, self.authority.certificate_pem(), &self.administrator.identity())
    }
}

/// Writes a kubeconfig, readable by its owner only.
pub(crate) fn write_kubeconfig(path: &Path, url: &str, authority_pem: &str, user: &Identity) -> Result<()> {
    let text = kubeconfig(url, authority_pem, user);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    }
    let temporary = path.with_extension("new");
    let options = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).clone();
    let written = options.open(&temporary).and_then(|mut file| file.write_all(text.as_bytes()));
    written.and_then(|()| std::fs::rename(&temporary, path)).with_context(|| format!("write {}", path.display()))
}

fn server_names(cluster: &Cluster) -> Vec<String> {
    let domain = cluster.settings.cluster_domain();
    let mut names: Vec<String> =
        ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).into();
    names.push(format!("kubernetes.default.svc.{domain}"));
    names.push(cluster.node_name.clone());
    names.extend(["127.0.0.1".to_owned(), cluster.kubernetes_ip.to_string()]);
    names.extend(cluster.node_ips.iter().map(ToString::to_string));
    let bind = cluster.settings.bind_address();
    if !bind.is_unspecified() {
        names.push(bind.to_string());
    }
    names
}
fn node_names(cluster: &Cluster) -> Vec<String> {
    let names = [cluster.node_name.clone(), "localhost".into(), "127.0.0.1".into()];
    names.into_iter().chain(cluster.node_ips.iter().map(ToString::to_string)).collect()
}

fn kubeconfig(url: &str, authority_pem: &str, user: &Identity) -> String {
    let [ca, certificate, key] = [authority_pem, &user.certificate_pem, &user.key_pem].map(|pem| BASE64.encode(pem));
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: pintle
  cluster:
    server: {url}
    certificate-authority-data: {ca}
contexts:
- name: pintle
  context:
    cluster: pintle
    user: pintle-admin
current-context: pintle
users:
- name: pintle-admin
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
"
    )
}
