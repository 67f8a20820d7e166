//! The round through sandboxes, containers and images that every runtime passes, in process or behind a socket.
//!
//! Needs an image with busybox, and sandboxes on the network of the runtime's host. Failures are panics, as in any test.

mod attached;
mod confined;

use futures::StreamExt;
use pintle_cri::*;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

const SOON: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);
const PORT: u16 = 18_080;
const WORK: &str = "echo out; echo err >&2; trap 'exit 3' TERM; while :; do sleep 1; done";

/// Where the round takes place.
pub struct Place {
    /// Has busybox, and is there already.
    pub image: String,
    pub log_directory: PathBuf,
    pub cgroup_parent: String,
}

struct Round<'a> {
    runtime: &'a dyn Runtime,
    place: &'a Place,
    sandbox: PodSandboxConfig,
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn host_network() -> NamespaceOption {
    NamespaceOption { network: NamespaceMode::Node, ..NamespaceOption::default() }
}

fn is_missing<T: std::fmt::Debug>(result: CriResult<T>) {
    assert!(matches!(result, Err(CriError::NotFound { .. })), "{result:?}");
}

/// Goes the whole round.
pub async fn round(runtime: &dyn Runtime, place: &Place) {
    let metadata = PodSandboxMetadata {
        name: "round".to_owned(),
        uid: "f81d4fae-7dec-11d0-a765-00a0c91e6bf6".to_owned(),
        namespace: "contract".to_owned(),
        attempt: 1,
    };
    let sandbox = PodSandboxConfig {
        metadata,
        log_directory: place.log_directory.to_string_lossy().into_owned(),
        labels: Labels::from([("suite".to_owned(), "contract".to_owned())]),
        annotations: Labels::from([("note".to_owned(), "of the sandbox".to_owned())]),
        cgroup_parent: place.cgroup_parent.clone(),
        namespaces: host_network(),
        ..PodSandboxConfig::default()
    };
    let round = Round { runtime, place, sandbox };
    round.about().await;
    let mut events = runtime.events().await.expect("events");
    let sandbox = round.begins().await;
    let container = round.container(&sandbox).await;
    happens(&mut events, EventKind::ContainerStarted, &container).await;
    round.commands(&container).await;
    round.forwards(&sandbox, &container).await;
    round.logs(&container).await;
    round.uses(&sandbox, &container).await;
    round.confines(&sandbox).await;
    round.attaches(&sandbox).await;
    round.leaves(&sandbox).await;
    round.ends(&sandbox, &container, &mut events).await;
}

async fn happens(events: &mut EventStream, kind: EventKind, container: &str) {
    let seen = async {
        while let Some(event) = events.next().await {
            if event.kind == kind && event.container_id == container {
                return event;
            }
        }
        panic!("the events ended before {kind:?}")
    };
    let event = timeout(SOON, seen).await.unwrap_or_else(|_| panic!("no {kind:?} of {container}"));
    assert_eq!(event.pod_uid, "f81d4fae-7dec-11d0-a765-00a0c91e6bf6");
}

impl Round<'_> {
    async fn about(&self) {
        let version = self.runtime.version().await.expect("version");
        assert_eq!(version.runtime_api_version, "v1");
        assert!(!version.runtime_name.is_empty() && !version.runtime_version.is_empty(), "{version:?}");
        assert_eq!(self.runtime.status().await.expect("status").runtime_ready, Ok(()));
        let image = self.runtime.image_status(&self.place.image).await.expect("image").expect("the image");
        assert!(image.id.starts_with("sha256:") && image.size > 0, "{image:?}");
        let all = self.runtime.list_images().await.expect("images");
        assert!(all.iter().any(|other| other.id == image.id), "{all:?}");
        assert_eq!(self.runtime.image_status("contract.test/none:1").await, Ok(None));
        assert!(!self.runtime.image_fs_info().await.expect("image filesystem").mountpoint.is_empty());
        is_missing(self.runtime.container_status("0123456789").await);
        is_missing(self.runtime.pod_sandbox_status("0123456789").await);
        is_missing(self.runtime.start_container("0123456789").await);
    }

    async fn begins(&self) -> String {
        let id = self.runtime.run_pod_sandbox(self.sandbox.clone(), "").await.expect("a sandbox");
        let status = self.runtime.pod_sandbox_status(&id).await.expect("its status");
        assert_eq!((status.state, &status.metadata), (SandboxState::Ready, &self.sandbox.metadata));
        assert_eq!((&status.labels, &status.annotations), (&self.sandbox.labels, &self.sandbox.annotations));
        assert_eq!(status.namespaces.network, NamespaceMode::Node);
        assert!(status.created_at > 0);
        let ours = PodSandboxFilter { labels: self.sandbox.labels.clone(), ..PodSandboxFilter::default() };
        let found = self.runtime.list_pod_sandbox(ours).await.expect("sandboxes");
        assert_eq!(found.iter().map(|sandbox| &sandbox.id).collect::<Vec<_>>(), [&id]);
        let others = Labels::from([("suite".to_owned(), "other".to_owned())]);
        let others = PodSandboxFilter { labels: others, ..PodSandboxFilter::default() };
        assert_eq!(self.runtime.list_pod_sandbox(others).await, Ok(vec![]));
        id
    }

    /// A container of this name that runs `script`; its folder for logs is there.
    fn configure(&self, name: &str, script: &str) -> ContainerConfig {
        std::fs::create_dir_all(self.place.log_directory.join(name)).expect("the log's folder");
        ContainerConfig {
            metadata: ContainerMetadata { name: name.to_owned(), attempt: 2 },
            image: self.place.image.clone(),
            command: words(&["sh", "-c", script]),
            log_path: format!("{name}/2.log"),
            security: ContainerSecurityContext { namespaces: host_network(), ..Default::default() },
            ..ContainerConfig::default()
        }
    }

    async fn create(&self, sandbox: &str, config: ContainerConfig) -> String {
        self.runtime.create_container(sandbox, config, &self.sandbox).await.expect("a container")
    }

    async fn container(&self, sandbox: &str) -> String {
        let config = ContainerConfig {
            envs: vec![("COLOUR".to_owned(), "blue".to_owned())],
            labels: Labels::from([("part".to_owned(), "one".to_owned())]),
            resources: LinuxContainerResources { cpu_shares: 256, ..Default::default() },
            ..self.configure("work", WORK)
        };
        let id = self.create(sandbox, config).await;
        let status = self.runtime.container_status(&id).await.expect("its status");
        assert_eq!((status.state, status.metadata.attempt), (ContainerState::Created, 2));
        self.runtime.start_container(&id).await.expect("its start");
        let status = self.runtime.container_status(&id).await.expect("its status");
        assert_eq!(status.state, ContainerState::Running, "{status:?}");
        assert!(status.started_at >= status.created_at && status.pid > 0, "{status:?}");
        let filter = ContainerFilter { sandbox_id: Some(sandbox.to_owned()), ..ContainerFilter::default() };
        let found = self.runtime.list_containers(filter).await.expect("containers");
        assert_eq!(found.iter().map(|container| &container.id).collect::<Vec<_>>(), [&id]);
        assert_eq!((found[0].state, found[0].metadata.name.as_str()), (ContainerState::Running, "work"));
        id
    }

    async fn commands(&self, container: &str) {
        let command = words(&["sh", "-c", "echo $COLOUR; echo bad >&2; exit 4"]);
        let done = self.runtime.exec_sync(container, &command, 10).await.expect("a command");
        assert_eq!(
            (done.stdout.as_slice(), done.stderr.as_slice(), done.exit_code),
            (&b"blue\n"[..], &b"bad\n"[..], 4)
        );
        let late = self.runtime.exec_sync(container, &words(&["sleep", "100"]), 1).await;
        assert!(matches!(late, Err(CriError::DeadlineExceeded(_))), "{late:?}");
        let mut session = self.session(container, &["cat"]).await;
        let mut stdin = session.stdin.take().expect("stdin");
        stdin.write_all(b"typed").await.expect("to write");
        stdin.shutdown().await.expect("to end the input");
        let mut told = String::new();
        let mut stdout = session.stdout.take().expect("stdout");
        timeout(SOON, stdout.read_to_string(&mut told)).await.expect("the end of the output").expect("to read");
        assert_eq!(told, "typed");
        assert_eq!(timeout(SOON, session.exit).await.expect("an end"), Ok(ExitOutcome::Code(0)));
        let session = self.session(container, &["sh", "-c", "exit 5"]).await;
        assert_eq!(timeout(SOON, session.exit).await.expect("an end"), Ok(ExitOutcome::Code(5)));
    }

    async fn session(&self, container: &str, command: &[&str]) -> ExecSession {
        let request = ExecRequest {
            container_id: container.to_owned(),
            command: words(command),
            stdin: true,
            stdout: true,
            stderr: true,
            ..ExecRequest::default()
        };
        self.runtime.exec(request).await.expect("a session")
    }

    async fn forwards(&self, sandbox: &str, container: &str) {
        let port = PORT.to_string();
        let _serving = self.session(container, &["httpd", "-f", "-p", &port, "-h", "/etc"]).await;
        let get = async || {
            let mut stream = self.runtime.port_forward(sandbox, PORT).await.ok()?;
            stream.write_all(b"GET /passwd HTTP/1.0\r\n\r\n").await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            Some(answer)
        };
        let answered = async {
            loop {
                match get().await {
                    Some(answer) if !answer.is_empty() => return answer,
                    _ => sleep(PAUSE).await,
                }
            }
        };
        let answer = timeout(SOON, answered).await.expect("an answer from the port");
        assert!(answer.contains("root:x:0:0"), "{answer}");
    }

    async fn logs(&self, container: &str) {
        let path = self.place.log_directory.join("work/2.log");
        let both = async {
            loop {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                if text.contains(" stdout F out\n") && text.contains(" stderr F err\n") {
                    return;
                }
                sleep(PAUSE).await;
            }
        };
        timeout(SOON, both).await.expect("both lines in the log");
        std::fs::rename(&path, path.with_extension("old")).expect("to set the log aside");
        self.runtime.reopen_container_log(container).await.expect("a new log");
        assert!(path.exists());
    }

    async fn uses(&self, sandbox: &str, container: &str) {
        let stats = self.runtime.container_stats(container).await.expect("usage");
        assert_eq!((stats.id.as_str(), stats.metadata.name.as_str()), (container, "work"));
        assert!(stats.timestamp > 0 && stats.cpu_usage_nanos > 0 && stats.memory_working_set_bytes > 0, "{stats:?}");
        let filter = ContainerFilter { sandbox_id: Some(sandbox.to_owned()), ..ContainerFilter::default() };
        let all = self.runtime.list_container_stats(filter).await.expect("usage of all");
        assert_eq!(all.iter().map(|stats| &stats.id).collect::<Vec<_>>(), [container]);
        let resources = LinuxContainerResources { cpu_shares: 512, ..Default::default() };
        self.runtime.update_container_resources(container, resources).await.expect("other resources");
    }

    async fn ends(&self, sandbox: &str, container: &str, events: &mut EventStream) {
        self.runtime.stop_container(container, 15).await.expect("to stop");
        let status = self.runtime.container_status(container).await.expect("its status");
        assert_eq!((status.state, status.exit_code), (ContainerState::Exited, 3), "{status:?}");
        assert!(status.finished_at >= status.started_at && status.pid == 0, "{status:?}");
        happens(events, EventKind::ContainerStopped, container).await;
        self.runtime.stop_container(container, 0).await.expect("to stop what has stopped");
        self.runtime.remove_container(container).await.expect("to remove");
        is_missing(self.runtime.container_status(container).await);
        self.runtime.remove_container(container).await.expect("to remove what is gone");
        self.runtime.stop_pod_sandbox(sandbox).await.expect("to stop the sandbox");
        let status = self.runtime.pod_sandbox_status(sandbox).await.expect("its status");
        assert_eq!(status.state, SandboxState::NotReady);
        self.runtime.stop_pod_sandbox(sandbox).await.expect("to stop it again");
        self.runtime.remove_pod_sandbox(sandbox).await.expect("to remove the sandbox");
        self.runtime.remove_pod_sandbox(sandbox).await.expect("to remove it again");
        is_missing(self.runtime.pod_sandbox_status(sandbox).await);
    }
}
