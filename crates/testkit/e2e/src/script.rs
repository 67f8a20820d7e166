//! Runs transcripts in a Kubernetes namespace of their own, with a kubectl of one version.

use crate::cluster::{Cluster, Space};
use crate::command::run;
use crate::transcript::{Done, Step, minor_version, parse};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a command may take until it does as it must, if its transcript says that it may take a while.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(150);

/// Where the commands of a transcript run: a directory with a kubeconfig and with a `kubectl` on the path.
struct Place<'a> {
    space: &'a Space<'a>,
    directory: PathBuf,
}

/// The transcripts of a folder beside the tests, by name.
pub fn transcripts(folder: &str) -> Result<Vec<(String, String)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned());
        found.push((name.unwrap_or_default(), fs::read_to_string(path)?));
    }
    found.sort();
    Ok(found)
}

/// Runs all steps of a transcript, and fails with each that did not do as it must.
pub fn play(cluster: &Cluster, name: &str, text: &str, kubectl: &Path) -> Result<()> {
    let steps = parse(text).with_context(|| name.to_owned())?;
    let mut space = cluster.space(name)?;
    space.kubectl = kubectl.to_owned();
    let place = Place::new(&space)?;
    let minor = minor_version(&space.ok(&["version", "--client", "-o", "json"])?)?;
    let mut complaints = Vec::new();
    for step in steps.iter().filter(|step| step.is_for(minor)) {
        complaints.extend(place.complaint(step).with_context(|| format!("{name}, line {}", step.line))?);
    }
    let said = complaints.join("\n");
    ensure!(
        complaints.is_empty(),
        "{name} with kubectl 1.{minor}: {} of {} steps\n{said}",
        complaints.len(),
        steps.len()
    );
    Ok(())
}

impl<'a> Place<'a> {
    fn new(space: &'a Space<'a>) -> Result<Self> {
        let directory = space.cluster.path(&space.name);
        let bin = directory.join("bin");
        fs::create_dir_all(&bin)?;
        symlink(&space.kubectl, bin.join("kubectl"))?;
        let plugin = bin.join("kubectl-greet");
        fs::write(&plugin, "#!/bin/sh\necho \"Hello, $1\"\n")?;
        fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755))?;
        fs::copy(space.cluster.path("kubeconfig"), directory.join("config"))?;
        let place = Self { space, directory };
        let into_space = "kubectl config set-context --current --namespace=$NS";
        run(place.shell(into_space), "")?.ok()?;
        Ok(place)
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = self.space.cluster.host.command("sh");
        let path = format!(
            "{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            self.directory.join("bin").display()
        );
        shell.args(["-c", command]).current_dir(&self.directory).env("PATH", path);
        shell.env("KUBECONFIG", self.directory.join("config")).env("HOME", &self.directory).env("NS", &self.space.name);
        shell.env_remove("EDITOR").env_remove("KUBE_EDITOR");
        shell
    }

    /// What a step did otherwise than it must.
    fn complaint(&self, step: &Step) -> Result<Option<String>> {
        let start = Instant::now();
        loop {
            let output = run(self.shell(&step.command), "")?;
            let done = Done { stdout: output.stdout, stderr: output.stderr, code: output.status.code() };
            let complaint = step.complaint(&done, &self.space.name)?;
            if complaint.is_none() || !step.eventually || start.elapsed() > LIMIT {
                return Ok(complaint);
            }
            std::thread::park_timeout(PAUSE);
        }
    }
}
