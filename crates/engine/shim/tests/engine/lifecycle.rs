//! Containers start, say what they should, end, and are gone.

use crate::machine::*;
use pintle_cri::*;

#[tokio::test]
async fn exit_codes_output_and_reasons_are_reported() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    assert_eq!(machine.run(&sandbox, "echo out; echo err >&2; exit 3").await, (3, "out\nerr\n".to_owned()));
    let id = machine.shell(&sandbox, "kill -9 $$; sleep 1000").await;
    machine.engine().stop_container(&id, 0).await.unwrap();
    let status = machine.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
    let done = machine.shell(&sandbox, "true").await;
    let status = machine.ended(&done).await;
    assert_eq!((status.exit_code, status.reason.as_str(), status.pid), (0, "Completed", 0));
    assert!(status.created_at <= status.started_at && status.started_at <= status.finished_at, "{status:?}");
    machine.finish().await;
}

#[tokio::test]
async fn environment_directory_and_user_are_those_asked_for() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox_with(|c| c.hostname = "web-1".into()).await;
    let (_, text) = machine
        .run_with(&sandbox, "echo $FROM $MINE $HOSTNAME $HOME; pwd; hostname; id -u; id -g; id -G", |c| {
            c.envs = vec![("MINE".into(), "a b".into())];
            c.security.run_as_username = "web".into();
            c.security.supplemental_groups = vec![77];
        })
        // The shell is the user's, with its groups of the image and of the pod.
        .await;
    assert_eq!(text, "image a b web-1 /srv\n/srv\nweb-1\n33\n34\n34 50 77\n");
    let (_, text) = machine
        .run_with(&sandbox, "pwd; id -u; id -G", |c| {
            c.working_dir = "/made/deep".into();
            (c.security.run_as_user, c.security.run_as_group) = (Some(1000), Some(1001));
            c.security.supplemental_groups_strict = true;
        })
        .await;
    assert_eq!(text, "/made/deep\n1000\n1001\n");
    machine.finish().await;
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let cases = [
        ("nope", "exec: \"nope\": executable file not found in $PATH"),
        ("/nope", "exec: \"/nope\": stat /nope: no such file or directory"),
        ("/plain", "exec: \"/plain\": permission denied"),
        ("/tmp", "exec: \"/tmp\": is a directory"),
    ];
    for (command, expected) in cases {
        let id = machine.create(&sandbox, |c| c.command = strings(&[command])).await.unwrap();
        let error = machine.engine().start_container(&id).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        let status = machine.engine().container_status(&id).await.unwrap();
        let shown = (status.state, status.exit_code, status.reason.as_str());
        assert_eq!(shown, (ContainerState::Exited, 128, "StartError"));
        assert!(status.message.contains(expected));
    }
    let id = machine.create(&sandbox, |c| c.security.run_as_username = "ghost".into()).await.unwrap();
    let error = machine.engine().start_container(&id).await.unwrap_err().to_string();
    assert!(error.contains("unable to find user ghost"), "{error}");
    let error = machine.create(&sandbox, |c| c.image = "absent".into()).await.unwrap_err();
    assert!(matches!(error, CriError::NotFound { what: "image", .. }));
    machine.finish().await;
}

#[tokio::test]
async fn stopping_asks_first_and_kills_when_the_time_is_over() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let polite = machine.shell(&sandbox, "trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done").await;
    let stubborn = machine.shell(&sandbox, "trap '' TERM; echo up; while :; do sleep 0.1; done").await;
    for id in [&polite, &stubborn] {
        let log = machine.engine().container_status(id).await.unwrap().log_path;
        wait_for_text(&log, "up").await;
    }
    machine.engine().stop_container(&polite, 30).await.unwrap();
    assert_eq!(machine.ended(&polite).await.exit_code, 9);
    machine.engine().stop_container(&stubborn, 1).await.unwrap();
    assert_eq!(machine.ended(&stubborn).await.exit_code, 137);
    // Stopping what is stopped, and what never was, succeeds.
    machine.engine().stop_container(&stubborn, 1).await.unwrap();
    machine.engine().stop_container("0123", 1).await.unwrap();
    machine.finish().await;
}

#[tokio::test]
async fn a_container_over_its_memory_is_reported_as_killed_for_it() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let id = machine
        .shell_with(&sandbox, "x=a; while :; do x=$x$x; done", |c| {
            c.resources.memory_limit_in_bytes = 16 << 20;
            c.resources.memory_swap_limit_in_bytes = 16 << 20;
        })
        .await;
    let status = machine.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    machine.finish().await;
}

#[tokio::test]
async fn processes_are_limited_and_counted() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; wait";
    let id = machine.shell_with(&sandbox, script, |c| c.resources.pids_limit = 5).await;
    let status = machine.ended(&id).await;
    assert!(text_of(&status.log_path).contains("can't fork"), "{}", text_of(&status.log_path));
    let id = machine.shell(&sandbox, "sleep 1000 & sleep 1000 & echo up; wait").await;
    wait_for_text(&machine.engine().container_status(&id).await.unwrap().log_path, "up").await;
    let stats = machine.engine().container_stats(&id).await.unwrap();
    assert_eq!((stats.pids, stats.writable_layer_bytes), (3, 4096));
    assert!(stats.memory_usage_bytes > 0 && stats.cpu_usage_nanos > 0, "{stats:?}");
    machine.finish().await;
}

#[tokio::test]
async fn names_filters_and_removal_are_idempotent() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox_with(|c| c.labels = label("app", "web")).await;
    let config = PodSandboxConfig {
        metadata: machine.engine().pod_sandbox_status(&sandbox).await.unwrap().metadata,
        ..Default::default()
    };
    let again = machine.engine().run_pod_sandbox(config, "").await.unwrap_err();
    assert!(matches!(again, CriError::AlreadyExists(_)), "{again}");
    let listed = |labels| async {
        let filter = PodSandboxFilter { labels, ..Default::default() };
        machine.engine().list_pod_sandbox(filter).await.unwrap().len()
    };
    assert_eq!((listed(label("app", "web")).await, listed(label("app", "db")).await), (1, 0));
    let id = machine.create(&sandbox, |c| c.metadata.name = "one".into()).await.unwrap();
    let twice = machine.create(&sandbox, |c| c.metadata.name = "one".into()).await.unwrap_err();
    assert!(matches!(twice, CriError::AlreadyExists(_)), "{twice}");
    for _ in 0..2 {
        machine.engine().remove_container(&id).await.unwrap();
        machine.engine().stop_pod_sandbox(&sandbox).await.unwrap();
    }
    let status = machine.engine().pod_sandbox_status(&sandbox).await.unwrap();
    assert_eq!(status.state, SandboxState::NotReady);
    let late = machine.create(&sandbox, |_| ()).await.unwrap_err();
    assert!(matches!(late, CriError::FailedPrecondition(_)), "{late}");
    for _ in 0..2 {
        machine.engine().remove_pod_sandbox(&sandbox).await.unwrap();
    }
    machine.finish().await;
}

#[tokio::test]
async fn limits_of_a_running_container_can_change() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let id = machine.shell_with(&sandbox, "sleep 1000", |c| c.resources.memory_limit_in_bytes = 32 << 20).await;
    let resources = LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() };
    machine.engine().update_container_resources(&id, resources).await.unwrap();
    let cgroups = pintle_linux::cgroup::Cgroups::detect().unwrap();
    let path = format!("{}/{sandbox}/{id}", machine.config.cgroup_root);
    assert_eq!(cgroups.stats(&path).unwrap().memory_limit_bytes, 64 << 20);
    machine.finish().await;
}

#[tokio::test]
async fn fifty_containers_come_and_go_and_leave_nothing() {
    let machine = Machine::new().await;
    for round in 0..10 {
        let sandbox = machine.sandbox().await;
        for _ in 0..5 {
            let id = machine.shell(&sandbox, "exit 0").await;
            assert_eq!(machine.ended(&id).await.exit_code, 0);
            machine.engine().remove_container(&id).await.unwrap();
        }
        machine.engine().remove_pod_sandbox(&sandbox).await.unwrap();
        assert_eq!(machine.leftovers(), Vec::<String>::new(), "round {round}");
    }
    let gone = async {
        while !machine.shims().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("shims end with their sandboxes");
    machine.finish().await;
}

/// Waits until a log holds a text. Nothing tells of new lines, so this looks again and again.
pub async fn wait_for_text(log: &str, text: &str) {
    let seen = async {
        while !text_of(log).contains(text) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("{text:?} should be in {log}"));
}

#[test]
fn a_shim_that_a_person_starts_says_what_it_lacks() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pintle-shim"));
    let ended = command.stdin(std::process::Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("take standard input as the socket to listen on"), "{said}");
}
