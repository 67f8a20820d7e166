//! The engine, or a shim, ends at the wrong moment.

use crate::lifecycle::wait_for_text;
use crate::machine::*;
use pintle_cri::*;

#[tokio::test]
async fn containers_outlive_the_engine_and_are_adopted() {
    let mut machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let script = "echo before; while ! busybox test -e /tmp/go; do sleep 0.05; done; echo after; exit 7";
    let running = machine.shell(&sandbox, script).await;
    let before = machine.engine().container_status(&running).await.unwrap();
    wait_for_text(&before.log_path, "before").await;
    machine.crash();
    machine.start().await;
    let status = machine.engine().container_status(&running).await.unwrap();
    assert_eq!((status.state, status.pid), (ContainerState::Running, before.pid));
    assert_eq!((status.started_at, status.created_at), (before.started_at, before.created_at));
    let sandbox_status = machine.engine().pod_sandbox_status(&sandbox).await.unwrap();
    assert_eq!((sandbox_status.state, sandbox_status.ips), (SandboxState::Ready, strings(&["10.0.0.9"])));
    machine.engine().exec_sync(&running, &strings(&["touch", "/tmp/go"]), 10).await.unwrap();
    let status = machine.ended(&running).await;
    assert_eq!((status.exit_code, text_of(&status.log_path).as_str()), (7, "before\nafter\n"));
    machine.finish().await;
}

#[tokio::test]
async fn what_ends_while_nobody_watches_has_its_exit_code() {
    let mut machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let waits = "while ! busybox test -e /data/go; do sleep 0.05; done; echo last words; exit 12";
    let volume = machine.root.path().join("volume");
    std::fs::create_dir_all(&volume).unwrap();
    let mount = Mount {
        host_path: volume.to_string_lossy().into_owned(),
        container_path: "/data".into(),
        ..Default::default()
    };
    let id = machine.shell_with(&sandbox, waits, |c| c.mounts = vec![mount]).await;
    let log = machine.engine().container_status(&id).await.unwrap().log_path;
    machine.crash();
    std::fs::write(volume.join("go"), "").unwrap();
    wait_for_text(&log, "last words").await;
    machine.start().await;
    let status = machine.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (12, "Error"));
    assert_eq!(machine.run(&sandbox, "echo again").await, (0, "again\n".to_owned()));
    machine.finish().await;
}

#[tokio::test]
async fn a_killed_shim_ends_its_containers_and_its_sandbox() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let id = machine.shell(&sandbox, "sleep 1000").await;
    for shim in machine.shims() {
        pintle_linux::process::PidFd::open(shim).unwrap().kill(9).unwrap();
    }
    let status = machine.ended(&id).await;
    assert_eq!(status.exit_code, 137, "{status:?}");
    let mut events = machine.engine().events().await.unwrap();
    let not_ready = async {
        while machine.engine().pod_sandbox_status(&sandbox).await.unwrap().state == SandboxState::Ready {
            futures::StreamExt::next(&mut events).await;
        }
    };
    tokio::time::timeout(PATIENCE, not_ready).await.expect("the sandbox is not ready without its shim");
    machine.finish().await;
}

#[tokio::test]
async fn after_a_reboot_everything_has_ended() {
    let mut machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let id = machine.shell(&sandbox, "sleep 1000").await;
    let created = machine.create(&sandbox, |_| ()).await.unwrap();
    machine.crash();
    for shim in machine.shims() {
        pintle_linux::process::PidFd::open(shim).unwrap().kill(9).unwrap();
    }
    let cgroups = pintle_linux::cgroup::Cgroups::detect().unwrap();
    cgroups.kill_all(&machine.config.cgroup_root, PATIENCE).unwrap();
    pintle_linux::netns::remove(&machine.config.run_dir.join("netns").join(&sandbox)).unwrap();
    // Before Linux 6.15 a sandbox's /dev/shm is mounted below the run directory.
    pintle_linux::mount::unmount(&machine.config.run_dir.join("sandboxes").join(&sandbox).join("shm")).unwrap();
    std::fs::remove_dir_all(&machine.config.run_dir).unwrap();
    machine.start().await;
    let status = machine.engine().container_status(&id).await.unwrap();
    assert_eq!((status.state, status.exit_code), (ContainerState::Exited, 255));
    let status = machine.engine().pod_sandbox_status(&sandbox).await.unwrap();
    assert_eq!(status.state, SandboxState::NotReady);
    assert!(machine.engine().start_container(&created).await.is_err());
    machine.finish().await;
}

#[tokio::test]
async fn half_made_things_are_cleaned_at_the_next_start() {
    let mut machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    machine.shell(&sandbox, "sleep 1000").await;
    let created = machine.create(&sandbox, |_| ()).await.unwrap();
    machine.crash();
    // As if the engine had ended while it made the container, and the sandbox.
    let state = &machine.config.state_dir;
    for record in [state.join("containers").join(&created), state.join("sandboxes").join(&sandbox)] {
        std::fs::write(record.join("record.json"), "{\"id\":").unwrap();
    }
    machine.start().await;
    assert_eq!(machine.engine().list_containers(ContainerFilter::default()).await.unwrap(), []);
    assert_eq!(machine.engine().list_pod_sandbox(PodSandboxFilter::default()).await.unwrap(), []);
    assert_eq!(machine.leftovers(), Vec::<String>::new());
    machine.finish().await;
}
