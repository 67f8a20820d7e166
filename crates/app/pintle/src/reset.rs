//! `pintle reset`: removes everything that a server or an agent left on this machine.

use crate::cluster::{self, Cluster};
use crate::node::{device_plugins, open_engine, pod_sandboxes};
use crate::pod_network::{self, PodNetwork};
use crate::{background, say};
use anyhow::{Context, Result, ensure};
use pintle_cri::{PodSandboxFilter, RuntimeService};
use pintle_image::ImageStore;
use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

pub(crate) async fn run(arguments: pintle_cli::Reset) -> Result<()> {
    let cluster = Cluster::new(cluster::settings(arguments.configured)?)?;
    ensure!(
        rustix::process::geteuid().is_root(),
        "pintle reset removes containers and networks: run it as root (sudo)"
    );
    if !arguments.yes {
        ensure!(confirmed(&cluster)?, "nothing was removed");
    }
    background::end(&cluster)?;
    let socket = cluster.settings.docker_socket();
    let live = std::os::unix::net::UnixStream::connect(&socket).is_ok();
    ensure!(!live, "a server is running on {}: stop it first", socket.display());
    remove_containers(&cluster).await?;
    remove_network(&cluster)?;
    for path in [cluster.settings.data_dir(), cluster.settings.run_dir()] {
        unmount_below(&path)?;
        remove(&path)?;
    }
    remove_kubelet_sockets(&device_plugins(&cluster))?;
    pintle_kubelet::ShutdownPaths::default().forget(&cluster.data("kubelet")).context("forget a delay of logind")?;
    // An agent has written none: one that is there is somebody else's.
    if cluster.settings.server.is_none() {
        remove_kubeconfig(&cluster.settings.write_kubeconfig())?;
    }
    say("everything is removed");
    Ok(())
}

/// Those outside the data directory, and their folders where nobody else has something in them.
fn remove_kubelet_sockets(plugins: &Path) -> Result<()> {
    for folder in [plugins.to_owned(), plugins.with_file_name("pod-resources")] {
        remove_file(&folder.join("kubelet.sock"))?;
        // Sockets of plugins may be in it: then it stays.
        let _ = std::fs::remove_dir(folder);
    }
    // Plugins have their sockets in it, too.
    let _ = std::fs::remove_dir(plugins.with_file_name("plugins_registry"));
    if let Some(parent) = plugins.parent() {
        // As above.
        let _ = std::fs::remove_dir(parent);
    }
    Ok(())
}

fn remove_kubeconfig(path: &Path) -> Result<()> {
    remove_file(path)?;
    if let Some(folder) = path.parent() {
        // Something of somebody else's may be in it: then it stays.
        let _ = std::fs::remove_dir(folder);
    }
    Ok(())
}

fn confirmed(cluster: &Cluster) -> Result<bool> {
    ensure!(std::io::stdin().is_terminal(), "say --yes to remove the cluster's state without being asked");
    let (data, run) = (cluster.settings.data_dir(), cluster.settings.run_dir());
    let mut out = std::io::stdout();
    write!(out, "This removes all containers and {} and {}. Go on? [y/N] ", data.display(), run.display())?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Stops and removes every sandbox through the engine, which knows what belongs to them.
async fn remove_containers(cluster: &Cluster) -> Result<()> {
    let (images, network) = (cluster.data("images"), cluster.data("network"));
    if !images.exists() || !network.exists() {
        // An engine alone has had no pods, but cgroups.
        return remove_cgroups(cluster);
    }
    let images = Arc::new(ImageStore::open(images)?);
    let network = pod_sandboxes(cluster, &PodNetwork::resume(cluster)?)?;
    let engine = open_engine(cluster, &images, network, pintle_clock::system()).await?;
    for sandbox in engine.list_pod_sandbox(PodSandboxFilter::default()).await? {
        engine.stop_pod_sandbox(&sandbox.id).await?;
        engine.remove_pod_sandbox(&sandbox.id).await?;
        remove_logs(cluster, &sandbox.metadata.uid)?;
    }
    // Pods that ended may have no sandbox any more.
    let pods = std::fs::read_dir(cluster.data("kubelet/pods")).into_iter().flatten().flatten();
    for pod in pods {
        remove_logs(cluster, &pod.file_name().to_string_lossy())?;
    }
    remove_cgroups(cluster)
}

/// The folder of logs is the machine's; what the kubelet made in it for a pod goes.
fn remove_logs(cluster: &Cluster, uid: &str) -> Result<()> {
    let ending = format!("_{uid}");
    let folders = std::fs::read_dir(cluster.settings.log_dir()).into_iter().flatten().flatten();
    for folder in folders.filter(|folder| folder.file_name().to_string_lossy().ends_with(&ending)) {
        remove(&folder.path())?;
    }
    Ok(())
}

fn remove_cgroups(cluster: &Cluster) -> Result<()> {
    let cgroups = pintle_linux::cgroup::Cgroups::detect()?;
    let root = cluster.settings.cgroup_root();
    // A root of our own goes as a whole; in the machine's there are others.
    let ours = if root.trim_matches('/').is_empty() { "/kubepods" } else { &root };
    cgroups.remove(ours).with_context(|| format!("remove the cgroup {ours}"))?;
    Ok(())
}

fn remove_network(cluster: &Cluster) -> Result<()> {
    pod_network::remove(cluster)?;
    pintle_docker::networks::remove_leftovers().context("remove the networks of Docker's containers")?;
    pintle_proxy::Kernel::open()?.remove_all().context("remove the rules of services")?;
    pintle_policy::remove().context("remove the rules of network policies")?;
    Ok(())
}

/// Takes away the mounts below a directory, the innermost first.
fn unmount_below(path: &Path) -> Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").context("read the mount table")?;
    let mut points: Vec<&str> = table.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    points.retain(|point| Path::new(point).starts_with(path));
    for point in points.iter().rev() {
        rustix::mount::unmount(*point, rustix::mount::UnmountFlags::DETACH)
            .with_context(|| format!("unmount {point}"))?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
