//! What containers may do and see: users, capabilities, file systems and limits, asked from inside.

use super::{Round, SOON, words};
use pintle_cri::{ContainerConfig, LinuxContainerResources, Mount};
use std::time::Duration;

/// Answers a line for each thing that was asked for.
const LOOK: &str = "
    id -u; id -g; id -G; pwd; cat /given/note
    touch /mine 2>/dev/null && echo may write the root || echo the root is read-only
    touch /given/mine 2>/dev/null && echo may write the mount || echo the mount is read-only
    echo from inside > /shared/told && echo may write what is shared
    sed -n 's/^NoNewPrivs:.//p; s/^CapBnd:.//p' /proc/self/status
    ls /proc/acpi /sys/firmware 2>/dev/null | grep -v : | grep -c .
    tr '\\0' '\\n' < /proc/1/cmdline | head -1";
const NET_ADMIN: u64 = 1 << 12;
const NET_BIND_SERVICE: u64 = 1 << 10;

impl Round<'_> {
    pub(super) async fn confines(&self, sandbox: &str) {
        let given = self.place.log_directory.join("given");
        let shared = self.place.log_directory.join("shared");
        for folder in [&given, &shared] {
            std::fs::create_dir_all(folder).expect("a folder to mount");
        }
        std::fs::write(given.join("note"), "of the host\n").expect("a file to mount");
        std::os::unix::fs::chown(&shared, Some(1234), Some(2345)).expect("a folder of the user's");
        let mount = |at: &str, path: &std::path::Path, readonly| Mount {
            container_path: at.to_owned(),
            host_path: path.to_string_lossy().into_owned(),
            readonly,
            ..Mount::default()
        };
        let mut config = ContainerConfig {
            working_dir: "/tmp".to_owned(),
            mounts: vec![mount("/given", &given, true), mount("/shared", &shared, false)],
            resources: LinuxContainerResources { cpu_shares: 128, ..Default::default() },
            ..self.configure("confined", "exec sleep 1000")
        };
        config.security.run_as_user = Some(1234);
        config.security.run_as_group = Some(2345);
        config.security.supplemental_groups = vec![3456];
        config.security.readonly_rootfs = true;
        config.security.no_new_privs = true;
        config.security.add_capabilities = words(&["NET_ADMIN"]);
        config.security.drop_capabilities = words(&["NET_BIND_SERVICE"]);
        config.security.masked_paths = words(&["/proc/acpi", "/sys/firmware"]);
        let container = self.create(sandbox, config).await;
        self.runtime.start_container(&container).await.expect("its start");
        let looked = self.runtime.exec_sync(&container, &words(&["sh", "-c", LOOK]), 10).await.expect("a look around");
        let told = String::from_utf8(looked.stdout).expect("text");
        let lines: Vec<_> = told.lines().collect();
        let [before @ .., bounding, privileges, masked, first] = lines.as_slice() else { panic!("{told}") };
        let expected = [
            "1234",
            "2345",
            "2345 3456",
            "/tmp",
            "of the host",
            "the root is read-only",
            "the mount is read-only",
            "may write what is shared",
        ];
        assert_eq!(before, expected);
        let bounding = u64::from_str_radix(bounding, 16).expect("a set of capabilities");
        assert_eq!((bounding & NET_ADMIN, bounding & NET_BIND_SERVICE), (NET_ADMIN, 0), "{bounding:x}");
        assert_eq!((*privileges, *masked, *first), ("1", "0", "sleep"));
        let seen = std::fs::read_to_string(shared.join("told"));
        assert_eq!(seen.ok().as_deref(), Some("from inside\n"));
        self.dies(&container).await;
    }

    /// `sleep` as the first process has no handler for SIGTERM: it is killed when its time is over.
    async fn dies(&self, container: &str) {
        let stopping = self.runtime.stop_container(container, 1);
        tokio::time::timeout(SOON, stopping).await.expect("an end in time").expect("to stop");
        let status = self.runtime.container_status(container).await.expect("its status");
        assert_eq!(status.exit_code, 137, "{status:?}");
        assert!(status.finished_at - status.started_at >= Duration::from_secs(1).as_nanos() as i64, "{status:?}");
        self.runtime.remove_container(container).await.expect("to remove");
    }
}
