//! Mounts land where they should, and nowhere else.

use crate::machine::*;
use pintle_cri::*;
use std::os::unix::fs::symlink;
use std::path::Path;

fn mount(host: &Path, container: &str) -> Mount {
    Mount { host_path: host.to_string_lossy().into_owned(), container_path: container.to_owned(), ..Mount::default() }
}

#[tokio::test]
async fn binds_are_there_read_only_when_asked() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let volume = machine.root.path().join("volume");
    std::fs::create_dir_all(volume.join("inner")).unwrap();
    std::fs::write(volume.join("file"), "hello\n").unwrap();
    let mounts = vec![
        mount(&volume, "/data"),
        Mount { readonly: true, ..mount(&volume, "/ro") },
        mount(&volume.join("file"), "/etc/deep/name"),
        mount(&machine.root.path().join("made"), "/made"),
        mount(&volume.join("file"), "/dev/termination-log"),
    ];
    let script = "exec 2>&1; cat /data/file /etc/deep/name; echo x > /data/new; echo x > /ro/new; echo bye > /dev/termination-log; \
                  ls -d /made";
    let (_, text) = machine.run_with(&sandbox, script, |c| c.mounts = mounts).await;
    assert!(text.starts_with("hello\nhello\n") && text.ends_with("/made\n"), "{text}");
    assert!(text.contains("/ro/new: Read-only file system"), "{text}");
    assert_eq!(std::fs::read_to_string(volume.join("file")).unwrap(), "bye\n");
    assert!(volume.join("new").exists());
    machine.finish().await;
}

#[tokio::test]
async fn a_read_only_root_keeps_its_volumes_writable() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let volume = machine.root.path().join("volume");
    std::fs::create_dir_all(&volume).unwrap();
    let script = "exec 2>&1; echo x > /x; echo x > /data/x && echo x > /dev/shm/x && echo ok";
    let (_, text) = machine
        .run_with(&sandbox, script, |c| {
            c.security.readonly_rootfs = true;
            c.mounts = vec![mount(&volume, "/data")];
        })
        .await;
    assert!(text.contains("/x: Read-only file system") && text.ends_with("ok\n"), "{text}");
    machine.finish().await;
}

#[tokio::test]
async fn sub_paths_are_made_and_never_lead_out_of_the_volume() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let volume = machine.root.path().join("volume");
    std::fs::create_dir_all(volume.join("inside")).unwrap();
    std::fs::write(volume.join("inside/file"), "mine\n").unwrap();
    std::fs::write(machine.root.path().join("secret"), "of the host\n").unwrap();
    symlink("/etc", volume.join("absolute")).unwrap();
    symlink("../secret", volume.join("relative")).unwrap();
    symlink("..", volume.join("up")).unwrap();
    symlink("inside", volume.join("good")).unwrap();
    let with = |sub_path: &str| Mount { sub_path: sub_path.to_owned(), ..mount(&volume, "/data") };
    for sub_path in ["inside", "good"] {
        let (_, text) = machine.run_with(&sandbox, "cat /data/file", |c| c.mounts = vec![with(sub_path)]).await;
        assert_eq!(text, "mine\n", "{sub_path}");
    }
    let (_, text) = machine.run_with(&sandbox, "ls -d /data/.", |c| c.mounts = vec![with("new/deep")]).await;
    assert_eq!(text, "/data/.\n");
    assert!(volume.join("new/deep").is_dir());
    for sub_path in ["absolute", "absolute/passwd", "relative", "up", "up/secret", "good/../../secret", "../secret"] {
        let started = async {
            let id = machine.create(&sandbox, |c| c.mounts = vec![with(sub_path)]).await?;
            machine.engine().start_container(&id).await
        };
        let error = started.await.expect_err(sub_path).to_string();
        assert!(!error.contains("of the host"), "{error}");
    }
    machine.finish().await;
}

#[tokio::test]
async fn links_of_the_image_do_not_lead_mounts_out_of_the_root() {
    let machine = Machine::new().await;
    let (layer, volume) = (machine.root.path().join("layer"), machine.root.path().join("volume"));
    std::fs::create_dir_all(&volume).unwrap();
    std::fs::write(volume.join("mark"), "").unwrap();
    symlink("/../../../../tmp/outside", layer.join("link")).unwrap();
    symlink("/proc/self/root/tmp", layer.join("magic")).unwrap();
    std::fs::create_dir_all(layer.join("tmp/outside")).unwrap();
    let sandbox = machine.sandbox().await;
    let (_, text) =
        machine.run_with(&sandbox, "ls /tmp/outside/in", |c| c.mounts = vec![mount(&volume, "/link/in")]).await;
    assert_eq!(text, "mark\n");
    assert!(!Path::new("/tmp/outside").exists());
    for target in ["/magic/x", "/proc/1/attr", "/proc/self/fd", "/proc/sys"] {
        let id = machine.create(&sandbox, |c| c.mounts = vec![mount(&volume, target)]).await.unwrap();
        assert!(machine.engine().start_container(&id).await.is_err(), "{target}");
    }
    machine.finish().await;
}

#[tokio::test]
async fn shared_memory_belongs_to_the_pod() {
    let machine = Machine::new().await;
    let (one, other) = (machine.sandbox().await, machine.sandbox().await);
    machine.run(&one, "echo shared > /dev/shm/x").await;
    assert_eq!(machine.run(&one, "cat /dev/shm/x").await.1, "shared\n");
    assert!(machine.run(&other, "cat /dev/shm/x").await.1.contains("No such file"));
    assert!(!Path::new("/dev/shm/x").exists());
    machine.finish().await;
}

#[tokio::test]
async fn a_container_sees_its_own_limits_and_no_other_cgroup() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max; \
                  cat /proc/self/cgroup; mkdir /sys/fs/cgroup/memory/x /sys/fs/cgroup/x";
    let (_, text) = machine.run_with(&sandbox, script, |c| c.resources.memory_limit_in_bytes = 32 << 20).await;
    assert!(text.starts_with("33554432\n"), "{text}");
    assert!(!text.contains("pintle-test"), "{text}");
    assert!(text.contains("Read-only file system"), "{text}");
    machine.finish().await;
}

#[tokio::test]
async fn mounts_of_a_container_do_not_appear_on_the_host() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let id = machine.shell(&sandbox, "sleep 1000").await;
    let root = machine.root.path().to_string_lossy().into_owned();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    // Before Linux 6.15 a sandbox's /dev/shm is mounted in its directory, too.
    let ours: Vec<&str> = mounts.lines().filter(|line| line.contains(&root) && !line.contains("/shm ")).collect();
    assert!(ours.len() == 1 && ours[0].contains("/netns/"), "{ours:?}");
    machine.engine().remove_container(&id).await.unwrap();
    machine.finish().await;
}

fn of_image(target: &str, sub_path: &str) -> Mount {
    Mount {
        container_path: target.to_owned(),
        image: "test".to_owned(),
        sub_path: sub_path.to_owned(),
        ..Mount::default()
    }
}

/// What a container sees of images that it mounts, with the machine's users or its own.
async fn check_images(ids: IdMappings) {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox_with(|config| config.id_mappings = ids).await;
    let mounts = vec![of_image("/part", "bin/busybox"), of_image("/image", ""), of_image("/programs", "bin")];
    let script = "exec 2>&1; ls -ln /image/bin/busybox /part /programs/busybox | busybox awk '{ print $3, $9 }'; \
                  echo x > /image/new; busybox mkdir /programs/new; /programs/busybox true; echo over";
    let (_, text) = machine.run_with(&sandbox, script, |c| c.mounts = mounts).await;
    assert!(text.starts_with("0 /image/bin/busybox\n0 /part\n0 /programs/busybox\n"), "{text}");
    let refused = text.matches("Read-only file system").count();
    assert!(refused == 2 && text.contains("Permission denied") && text.ends_with("over\n"), "{text}");
    machine.finish().await;
}

#[tokio::test]
async fn images_are_mounted_to_be_read_only() {
    check_images(IdMappings::default()).await;
}

#[tokio::test]
async fn images_are_mounted_in_user_namespaces_too() {
    check_images(IdMappings::from_root(300_000, 65_536)).await;
}

#[tokio::test]
async fn parts_of_images_never_lead_out_of_them_and_images_must_be_there() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let absent = Mount { image: "absent".to_owned(), ..of_image("/image", "") };
    let error = machine.create(&sandbox, |c| c.mounts = vec![absent]).await.unwrap_err();
    assert_eq!(error, CriError::NotFound { what: "image", id: "absent".to_owned() });
    for sub_path in ["nothing/there", "../x"] {
        let mounts = vec![of_image("/image", sub_path)];
        let made = machine
            .create(&sandbox, |c| {
                c.command = strings(&["true"]);
                c.mounts = mounts;
            })
            .await;
        let failed = match made {
            Ok(id) => machine.engine().start_container(&id).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(failed.to_string().contains(sub_path) || failed.to_string().contains("/image"), "{failed}");
    }
    machine.finish().await;
}

#[tokio::test]
async fn what_was_mounted_after_the_engine_began_can_be_bound() {
    let machine = Machine::new().await;
    let later = machine.root.path().join("later");
    std::fs::create_dir(&later).unwrap();
    let tree = pintle_linux::mount::Tree::of_filesystem("tmpfs", &[], pintle_linux::mount::INERT).unwrap();
    tree.attach_at(&later).unwrap();
    std::fs::write(later.join("file"), "hello\n").unwrap();
    let sandbox = machine.sandbox().await;
    let mounts =
        vec![mount(&later, "/data"), mount(&later.join("file"), "/etc/name"), mount(machine.root.path(), "/all")];
    let script = "cat /data/file /etc/name /all/later/file";
    let (_, text) = machine.run_with(&sandbox, script, |c| c.mounts = mounts).await;
    pintle_linux::mount::unmount(&later).unwrap();
    assert_eq!(text, "hello\nhello\nhello\n");
    machine.finish().await;
}
