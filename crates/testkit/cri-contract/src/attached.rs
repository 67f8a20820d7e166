//! Clients at the first process of a container, terminals, images that can't be had, and what goes with a sandbox.

use super::{Round, SOON, is_missing, words};
use pintle_cri::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Sizes travel beside the input, so the one may come after the other.
const WAITS_FOR_ITS_SIZE: &str = "read -r go; until stty size 2>/dev/null | grep '37 91'; do busybox usleep 10000; \
                                  done; test -t 0 && test -t 1";

impl Round<'_> {
    /// What is typed reaches the first process, what it says comes back and is logged; it ends with its input.
    pub(super) async fn attaches(&self, sandbox: &str) {
        let config = ContainerConfig {
            stdin: true,
            stdin_once: true,
            ..self.configure("listens", "while read -r word; do echo \"heard $word\"; done; exit 6")
        };
        let container = self.create(sandbox, config).await;
        self.runtime.start_container(&container).await.expect("its start");
        let request =
            AttachRequest { container_id: container.clone(), stdin: true, stdout: true, ..Default::default() };
        let mut session = self.runtime.attach(request).await.expect("to attach");
        let mut stdin = session.stdin.take().expect("stdin");
        stdin.write_all(b"one\ntwo\n").await.expect("to write");
        stdin.shutdown().await.expect("to end the input");
        drop(stdin);
        let mut told = String::new();
        let mut stdout = session.stdout.take().expect("stdout");
        timeout(SOON, stdout.read_to_string(&mut told)).await.expect("the end of the output").expect("to read");
        assert_eq!(told, "heard one\nheard two\n");
        self.ended(&container, 6).await;
        let log = std::fs::read_to_string(self.place.log_directory.join("listens/2.log")).expect("a log");
        assert!(log.contains(" stdout F heard one\n") && log.contains(" stdout F heard two\n"), "{log}");
        self.has_terminal(sandbox).await;
    }

    async fn has_terminal(&self, sandbox: &str) {
        let config = ContainerConfig { tty: true, stdin: true, ..self.configure("terminal", "exec sleep 1000") };
        let container = self.create(sandbox, config).await;
        self.runtime.start_container(&container).await.expect("its start");
        let request = ExecRequest {
            container_id: container.clone(),
            command: words(&["sh", "-c", WAITS_FOR_ITS_SIZE]),
            tty: true,
            stdin: true,
            stdout: true,
            ..ExecRequest::default()
        };
        let mut session = self.runtime.exec(request).await.expect("a session");
        assert!(session.stderr.is_none(), "a terminal has one output");
        session.resize.send(TerminalSize { width: 91, height: 37 }).await.expect("a size");
        let mut stdin = session.stdin.take().expect("stdin");
        let mut stdout = session.stdout.take().expect("stdout");
        stdin.write_all(b"go\n").await.expect("to write");
        let mut told = String::new();
        timeout(SOON, stdout.read_to_string(&mut told)).await.expect("the end of the output").expect("to read");
        assert!(told.contains("37 91"), "{told:?}");
        assert_eq!(timeout(SOON, session.exit).await.expect("an end"), Ok(ExitOutcome::Code(0)));
        // What was created only, and what runs, can be removed.
        self.runtime.remove_container(&container).await.expect("to remove what runs");
        is_missing(self.runtime.container_status(&container).await);
        let container = self.create(sandbox, self.configure("never", "exit 0")).await;
        self.runtime.remove_container(&container).await.expect("to remove what never ran");
    }

    /// What can't be had, and containers that end with their sandbox.
    pub(super) async fn leaves(&self, sandbox: &str) {
        let refused = self.runtime.pull_image("127.0.0.1:1/contract/none:1", None).await;
        assert!(refused.is_err(), "{refused:?}");
        self.runtime.remove_image("contract.test/none:1").await.expect("to remove an image that is not there");
        let config = ContainerConfig { command: words(&["/no/such/program"]), ..self.configure("impossible", "") };
        let impossible = self.create(sandbox, config).await;
        let error = self.runtime.start_container(&impossible).await.expect_err("no program");
        assert!(error.to_string().contains("/no/such/program"), "{error}");
        self.runtime.remove_container(&impossible).await.expect("to remove what could not start");
        let metadata = PodSandboxMetadata { name: "second".to_owned(), attempt: 2, ..self.sandbox.metadata.clone() };
        let config = PodSandboxConfig { metadata, ..self.sandbox.clone() };
        let second = self.runtime.run_pod_sandbox(config.clone(), "").await.expect("a second sandbox");
        let container = self.configure("stays", "exec sleep 1000");
        let container = self.runtime.create_container(&second, container, &config).await.expect("a container");
        self.runtime.start_container(&container).await.expect("its start");
        self.runtime.stop_pod_sandbox(&second).await.expect("to stop the second sandbox");
        self.ended(&container, 137).await;
        self.runtime.remove_pod_sandbox(&second).await.expect("to remove the second sandbox");
        is_missing(self.runtime.container_status(&container).await);
    }

    async fn ended(&self, container: &str, code: i32) {
        let ended = async {
            loop {
                let status = self.runtime.container_status(container).await.expect("its status");
                if status.state == ContainerState::Exited {
                    return status.exit_code;
                }
                tokio::time::sleep(super::PAUSE).await;
            }
        };
        assert_eq!(timeout(SOON, ended).await.expect("an end"), code);
    }
}
