//! Published escapes, tried again; each name says what must hold, each comment what was published.
//!
//! Further ones are where what they attack is tested: the program that starts containers (CVE-2019-5736), the working
//! directory and open descriptors (CVE-2024-21626), abstract sockets (CVE-2020-15257) and empty profiles
//! (CVE-2023-2431) in `confinement` and `options`, sub paths (CVE-2021-25741) in `mounts`.

use crate::machine::*;
use pintle_cri::*;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Starts in the race; a resolver of paths loses some of them.
const ROUNDS: usize = 25;

/// A thread that exchanges two names for each other, until it is dropped.
struct Swapping(Arc<AtomicBool>, Option<std::thread::JoinHandle<()>>);

impl Swapping {
    fn start(one: PathBuf, other: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (here, exchange) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
            while !stopped.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(here, &one, here, &other, exchange).unwrap();
            }
        });
        Self(stop, Some(thread))
    }
}

impl Drop for Swapping {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let _ = self.1.take().map(std::thread::JoinHandle::join);
    }
}

/// CVE-2021-30465 (runc): a mount target was resolved as a path, and swapped for a link to the host meanwhile.
#[tokio::test]
async fn a_mount_target_that_is_swapped_for_a_link_stays_in_the_root() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let (volume, other) = (machine.root.path().join("volume"), machine.root.path().join("other"));
    let outside = machine.root.path().join("outside");
    for directory in [&volume.join("sub"), &volume.join("spare"), &other, &outside] {
        std::fs::create_dir_all(directory).unwrap();
    }
    symlink(&outside, volume.join("link")).unwrap();
    let mount = |host: &std::path::Path, inside: &str| Mount {
        host_path: host.to_string_lossy().into_owned(),
        container_path: inside.to_owned(),
        ..Mount::default()
    };
    let swapping = Swapping::start(volume.join("sub"), volume.join("link"));
    for _ in 0..ROUNDS {
        let id = machine.create(&sandbox, |c| {
            c.command = strings(&["cat", "/proc/self/mountinfo"]);
            c.mounts = vec![mount(&volume, "/vol"), mount(&other, "/vol/sub")];
        });
        let id = id.await.unwrap();
        // A start that the race breaks is refused: as good.
        if machine.engine().start_container(&id).await.is_ok() {
            let log = machine.ended(&id).await.log_path;
            let seen = text_of(&log).lines().filter(|line| line.contains("/other ")).count();
            assert_eq!(seen, 1, "the mount landed outside of the root: {}", text_of(&log));
        }
    }
    drop(swapping);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("/outside"), "mounted on the host");
    machine.finish().await;
}

/// CVE-2025-31133 and CVE-2025-52565 (runc): an image's /dev/null or /dev/console was a link, and what it leads to was
/// mounted over masked paths and so made writable.
#[tokio::test]
async fn devices_of_the_image_do_not_stand_in_for_null_and_console() {
    let machine = Machine::new().await;
    let dev = machine.root.path().join("layer/dev");
    std::fs::create_dir_all(dev.join("pts")).unwrap();
    for name in ["null", "console", "pts/0", "ptmx"] {
        symlink("/proc/sys/kernel/core_pattern", dev.join(name)).unwrap();
    }
    let sandbox = machine.sandbox().await;
    let before = std::fs::read("/proc/sys/kernel/core_pattern").unwrap();
    let script =
        "echo pwned > /dev/null; cat /proc/keys; echo pwned > /proc/keys; echo pwned > /dev/console; ls -l /dev/null";
    for tty in [false, true] {
        let (_, text) = machine
            .run_with(&sandbox, script, |c| {
                c.tty = tty;
                c.security.masked_paths = strings(&["/proc/keys"]);
                c.security.readonly_paths = strings(&["/proc/sys"]);
            })
            .await;
        assert!(text.contains("crw-rw-rw-") && !text.contains("core_pattern"), "{text}");
        assert_eq!(std::fs::read("/proc/sys/kernel/core_pattern").unwrap(), before);
    }
    machine.finish().await;
}

/// CVE-2025-52565 (runc), the other way: a running container replaces /dev/null, and waits for an exec to open it.
#[tokio::test]
async fn an_exec_does_not_open_what_a_container_put_in_place_of_null() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let script = "busybox rm /dev/null; ln -s /proc/1/environ /dev/null; echo up; exec sleep 1000";
    let id = machine.shell(&sandbox, script).await;
    crate::lifecycle::wait_for_text(&machine.engine().container_status(&id).await.unwrap().log_path, "up").await;
    let error = machine.engine().exec_sync(&id, &strings(&["true"]), 10).await.unwrap_err().to_string();
    assert!(error.contains("/dev/null"), "{error}");
    machine.finish().await;
}

/// CVE-2026-53488 and relatives (containerd): labels of an image were taken for the runtime's own and overrode the pod.
#[tokio::test]
async fn labels_of_an_image_say_nothing_about_the_container() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    // The test image says that its user is root, that it is privileged and that it is of another pod.
    let id = machine.shell_with(&sandbox, "id -u; mount -t tmpfs none /tmp || echo refused", |c| {
        c.security.run_as_user = Some(1000);
    });
    let status = machine.ended(&id.await).await;
    assert!(status.labels.is_empty() && status.annotations.is_empty(), "{status:?}");
    let text = text_of(&status.log_path);
    // Errors go another way, so what comes first is open.
    let has = |wanted: &str| text.lines().any(|line| line == wanted);
    assert!(has("1000") && has("refused"), "{text}");
    machine.finish().await;
}
