//! `pintle certs`: when the certificates of this machine run out, and new ones.
//!
//! A server has the authorities and signs its certificates itself. An agent asks its cluster for new ones, as when it
//! joined. What runs is told, and shows the new ones to everybody who connects from then on.

use crate::cluster::{self, Cluster};
use crate::credentials::{self, ADMINISTRATOR, AUTHORITY, FRONT_PROXY, FRONT_PROXY_AUTHORITY};
use crate::identity::{AUTHORITY_FILE, KUBELET_CLIENT, KUBELET_SERVING, PROXY_CLIENT};
use crate::{join, presence, refresh, say};
use anyhow::{Context, Result, bail, ensure};
use pintle_cli::certs::{Certificate, CertsCommand, expiration_json, expiration_table};
use pintle_cli::output::Format;
use pintle_clock::Timestamp;
use pintle_pki::{CertificateAuthority, Identity};
use std::path::Path;
use std::process::ExitCode;

const ALL: &str = "all";
/// The certificates of an agent, with what they are.
const OF_AGENT: [(&str, &str); 3] = [
    (KUBELET_SERVING, "certificate for serving the kubelet's API"),
    (KUBELET_CLIENT, "certificate for the kubelet to connect to the API server"),
    (PROXY_CLIENT, "certificate for the service proxy to connect to the API server"),
];

pub(crate) async fn run(command: CertsCommand) -> Result<ExitCode> {
    match command {
        CertsCommand::Check { output, configured } => check(&Cluster::new(cluster::settings(configured)?)?, output),
        CertsCommand::Renew { name, configured } => {
            let cluster = Cluster::new(cluster::settings(configured)?)?;
            renew(&cluster, &name).await.map(|()| ExitCode::SUCCESS)
        }
    }
}

/// The certificates of a machine, and the authorities that signed them.
pub(crate) struct Found {
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) authorities: Vec<Certificate>,
}

/// What the files of this machine say; nothing when it is neither a server nor a node.
pub(crate) fn find(cluster: &Cluster) -> Result<Option<Found>> {
    let directory = credentials::directory(cluster);
    let there = directory.join(AUTHORITY_FILE).try_exists();
    if !there.with_context(|| format!("look into {}", directory.display()))? {
        return Ok(None);
    }
    let is_agent = is_agent(cluster);
    let names: Vec<(&str, &str)> = match is_agent {
        true => OF_AGENT.iter().map(|(name, _)| (*name, AUTHORITY)).collect(),
        false => credentials::wanted(cluster).iter().map(|wanted| (wanted.name, wanted.authority)).collect(),
    };
    let authorities: &[&str] = if is_agent { &[AUTHORITY] } else { &[AUTHORITY, FRONT_PROXY_AUTHORITY] };
    let external = |authority: &str| !directory.join(format!("{authority}.key")).exists();
    let certificate = |name: &str, authority: Option<&str>| -> Result<Certificate> {
        Ok(Certificate {
            name: name.to_owned(),
            expires: expires(&directory.join(format!("{name}.crt")))?,
            authority: authority.map(str::to_owned),
            externally_managed: external(authority.unwrap_or(name)),
        })
    };
    Ok(Some(Found {
        certificates: names.iter().map(|(name, by)| certificate(name, Some(by))).collect::<Result<_>>()?,
        authorities: authorities.iter().map(|name| certificate(name, None)).collect::<Result<_>>()?,
    }))
}

fn is_agent(cluster: &Cluster) -> bool {
    cluster.settings.server.is_some()
}

/// When the certificate of a file runs out; nothing when there is no file.
fn expires(path: &Path) -> Result<Option<Timestamp>> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let end = pintle_pki::end_of_validity(&text);
            end.map(Some).with_context(|| format!("read {}", path.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Fails when something has run out.
fn check(cluster: &Cluster, format: Format) -> Result<ExitCode> {
    let found = find(cluster)?.with_context(|| nothing(cluster))?;
    let (now, Found { certificates, authorities }) = (pintle_clock::system().now(), found);
    match format {
        Format::Table => say(expiration_table(&certificates, &authorities, now).trim_end()),
        Format::Json => {
            let value = expiration_json(&certificates, &authorities, now);
            say(serde_json::to_string_pretty(&value)?);
        }
    }
    let expired = certificates.iter().chain(&authorities).any(|found| found.has_expired(now));
    Ok(if expired { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn nothing(cluster: &Cluster) -> String {
    let data = cluster.settings.data_dir();
    format!(
        "{} has no certificates: name the data directory with --data-dir, or make a cluster with `pintle init`",
        data.display()
    )
}

async fn renew(cluster: &Cluster, name: &str) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "pintle certs renew writes the cluster's keys: run it as root (sudo)"
    );
    ensure!(find(cluster)?.is_some(), nothing(cluster));
    let is_agent = is_agent(cluster);
    let renewed = if is_agent { renew_agent(cluster, name).await? } else { renew_server(cluster, name)? };
    let running = presence::find(&cluster.settings.run_dir());
    if let Some(running) = &running {
        refresh::tell(running)?;
    }
    say(format_args!("\nDone renewing certificates. {}", advice(&renewed, running.is_some(), is_agent)));
    Ok(())
}

/// What has to be done so that the new certificates are used.
fn advice(renewed: &[String], is_running: bool, is_agent: bool) -> String {
    let part = if is_agent { "agent" } else { "server" };
    if !is_running {
        return format!("The {part} does not run; its next start uses them.");
    }
    if renewed.iter().any(|name| name == FRONT_PROXY) {
        return format!(
            "The {part} that runs uses them for new connections, but for {FRONT_PROXY}: restart it so that it uses \
             that one too."
        );
    }
    format!("The {part} that runs uses them for new connections; nothing has to be restarted.")
}

fn chosen<'a>(known: impl Iterator<Item = &'a str> + Clone, name: &str) -> Result<Vec<String>> {
    if name == ALL {
        return Ok(known.map(str::to_owned).collect());
    }
    if known.clone().any(|one| one == name) {
        return Ok(vec![name.to_owned()]);
    }
    bail!("there is no certificate {name:?}; there are all, {}", known.collect::<Vec<_>>().join(", "))
}

fn renew_server(cluster: &Cluster, name: &str) -> Result<Vec<String>> {
    let (all, directory, now) =
        (credentials::wanted(cluster), credentials::directory(cluster), pintle_clock::system().now());
    let names = chosen(all.iter().map(|wanted| wanted.name), name)?;
    let mut renewed = Vec::new();
    for wanted in all.iter().filter(|wanted| names.iter().any(|name| name == wanted.name)) {
        let Some(authority) = CertificateAuthority::load(&directory, wanted.authority)? else {
            say(format_args!("Detected external {}, {} can't be renewed", wanted.authority, wanted.what));
            continue;
        };
        wanted.renew(&authority, &directory, now)?;
        if wanted.name == ADMINISTRATOR {
            let user = Identity::load(&directory, ADMINISTRATOR)?.context("the administrator's certificate is gone")?;
            let path = cluster.settings.write_kubeconfig();
            credentials::write_kubeconfig(&path, &cluster.local_url(), authority.certificate_pem(), &user)?;
        }
        say(format_args!("{} renewed", wanted.what));
        renewed.push(wanted.name.to_owned());
    }
    Ok(renewed)
}

async fn renew_agent(cluster: &Cluster, name: &str) -> Result<Vec<String>> {
    let names = chosen(OF_AGENT.iter().map(|(name, _)| *name), name)?;
    for (name, what) in OF_AGENT.iter().filter(|(name, _)| names.iter().any(|chosen| chosen == name)) {
        join::renew(cluster, name).await.with_context(|| format!("renew the {what}"))?;
        say(format_args!("{what} renewed"));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_cli::Settings;

    #[test]
    fn one_or_all_are_chosen() {
        let known = ["a", "b"];
        assert_eq!(chosen(known.into_iter(), "all").unwrap(), ["a", "b"]);
        assert_eq!(chosen(known.into_iter(), "b").unwrap(), ["b"]);
        let error = chosen(known.into_iter(), "c").unwrap_err().to_string();
        assert_eq!(error, "there is no certificate \"c\"; there are all, a, b");
    }

    #[test]
    fn only_what_needs_it_is_to_be_restarted() {
        let proxy = [FRONT_PROXY.to_owned()];
        assert!(advice(&proxy, true, false).contains("restart it"));
        assert!(advice(&[], true, false).contains("nothing has to be restarted"));
        assert!(advice(&proxy, false, true).starts_with("The agent does not run"));
    }

    #[test]
    fn a_servers_certificates_are_made_found_and_renewed() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Cluster::new(Settings {
            data_dir: Some(folder.path().join("data")),
            write_kubeconfig: Some(folder.path().join("kubeconfig")),
            node_name: Some("a".into()),
            node_ip: Some("10.1.1.1".parse().unwrap()),
            ..Settings::default()
        })
        .unwrap();
        assert!(find(&cluster).unwrap().is_none());
        let clock = pintle_clock::ManualClock::new(Timestamp::from_second(1_700_000_000).unwrap());
        let credentials = credentials::Credentials::load_or_create(&cluster, &*clock).unwrap();
        let before = find(&cluster).unwrap().unwrap();
        assert_eq!((before.certificates.len(), before.authorities.len()), (5, 2));
        let end = Timestamp::from_second(1_700_000_000 + 365 * 86_400).unwrap();
        assert!(before.certificates.iter().all(|found| found.expires == Some(end) && !found.externally_managed));
        let checked = check(&cluster, Format::Json).unwrap();
        assert_eq!(format!("{checked:?}"), format!("{:?}", ExitCode::FAILURE), "they ran out long ago");
        assert!(credentials.refresh(&cluster, &*clock).unwrap().is_empty());
        assert_eq!(renew_server(&cluster, "apiserver").unwrap(), ["apiserver"]);
        assert_eq!(renew_server(&cluster, "admin").unwrap(), ["admin"]);
        assert!(
            std::fs::read_to_string(folder.path().join("kubeconfig")).unwrap().contains("server: https://127.0.0.1:")
        );
        let after = find(&cluster).unwrap().unwrap();
        let later: Vec<&str> =
            after.certificates.iter().filter(|found| found.expires > Some(end)).map(|found| &*found.name).collect();
        assert_eq!(later, ["admin", "apiserver"]);
        assert_eq!(credentials.refresh(&cluster, &*clock).unwrap(), ["apiserver", "admin"]);
    }
}
