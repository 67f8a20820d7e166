//! Tests of what becomes of a container's configuration.

use super::*;
use crate::records::ImageDefaults;

fn list(items: &[&str]) -> Vec<String> {
    items.iter().map(|s| (*s).to_owned()).collect()
}

fn record(change: impl FnOnce(&mut ContainerConfig)) -> ContainerRecord {
    let mut record = ContainerRecord {
        image: ImageDefaults {
            entrypoint: list(&["/entry"]),
            cmd: list(&["serve"]),
            env: list(&["PATH=/bin", "A=image"]),
            working_dir: "srv".to_owned(),
            user: "web".to_owned(),
            stop_signal: "SIGQUIT".to_owned(),
            ..ImageDefaults::default()
        },
        ..ContainerRecord::default()
    };
    change(&mut record.config);
    record
}

#[test]
fn commands_and_arguments_replace_those_of_the_image_as_kubernetes_says() {
    let cases: [(&[&str], &[&str], &[&str]); 4] = [
        (&[], &[], &["/entry", "serve"]),
        (&[], &["x"], &["/entry", "x"]),
        (&["/cmd"], &[], &["/cmd"]),
        (&["/cmd"], &["x"], &["/cmd", "x"]),
    ];
    for (command, args, expected) in cases {
        let record = record(|c| (c.command, c.args) = (list(command), list(args)));
        assert_eq!(arguments(&record).unwrap(), expected, "{command:?} {args:?}");
    }
    assert!(arguments(&ContainerRecord::default()).is_err());
}

#[test]
fn variables_of_the_configuration_win_over_those_of_the_image() {
    let record = record(|c| {
        c.tty = true;
        c.envs = vec![("A".into(), "pod".into()), ("B".into(), "x=y".into())];
    });
    let expected = ["PATH=/bin", "A=pod", "HOSTNAME=h", "TERM=xterm", "B=x=y"];
    assert_eq!(environment(&record, "h"), expected);
}

#[test]
fn the_user_comes_from_the_configuration_then_the_image() {
    let user_with = |change: fn(&mut ContainerSecurityContext)| user(&record(|c| change(&mut c.security)));
    assert_eq!(user_with(|_| ()).unwrap(), "web");
    assert_eq!(user_with(|s| s.run_as_user = Some(7)).unwrap(), "7");
    assert_eq!(user_with(|s| (s.run_as_user, s.run_as_group) = (Some(7), Some(8))).unwrap(), "7:8");
    assert_eq!(user_with(|s| s.run_as_username = "app".into()).unwrap(), "app");
    assert!(user_with(|s| s.run_as_group = Some(8)).is_err());
}

#[test]
fn capabilities_are_added_and_dropped() {
    let with = |add: &[&str], drop: &[&str]| {
        let security = ContainerSecurityContext {
            add_capabilities: list(add),
            drop_capabilities: list(drop),
            ..ContainerSecurityContext::default()
        };
        capabilities(&security)
    };
    assert!(with(&[], &[]).unwrap().has("CHOWN") && !with(&[], &[]).unwrap().has("SYS_ADMIN"));
    assert_eq!(with(&[], &["ALL"]).unwrap(), Capabilities::NONE);
    assert_eq!(with(&["NET_BIND_SERVICE"], &["ALL"]).unwrap(), Capabilities::parse(["NET_BIND_SERVICE"]).unwrap());
    assert!(with(&["ALL"], &["KILL"]).unwrap().has("SYS_ADMIN") && !with(&["ALL"], &["KILL"]).unwrap().has("KILL"));
    assert!(with(&["FLY"], &[]).is_err());
}

#[test]
fn the_stop_signal_is_the_configurations_then_the_images_then_sigterm() {
    assert_eq!(stop_signal(&record(|_| ())), 3);
    assert_eq!(stop_signal(&record(|c| c.stop_signal = "SIGUSR1".into())), 10);
    assert_eq!(stop_signal(&ContainerRecord::default()), 15);
}

#[test]
fn a_relative_working_directory_is_taken_from_the_root() {
    assert_eq!(working_directory(&record(|_| ())), Path::new("/srv"));
    assert_eq!(working_directory(&record(|c| c.working_dir = "/tmp".into())), Path::new("/tmp"));
    assert_eq!(working_directory(&ContainerRecord::default()), Path::new("/"));
}

#[test]
fn files_of_the_sandbox_give_way_to_mounts_of_the_container() {
    let record = record(|c| {
        c.mounts = vec![Mount { container_path: "/etc/hosts".into(), host_path: "/x".into(), ..Mount::default() }];
    });
    let sandbox = SandboxRecord::default();
    let files = PathBuf::from("/files");
    let around =
        Surroundings { sandbox: &sandbox, files, exit_file: PathBuf::new(), seccomp: None, pid: None, init: None };
    let mounts = mounts(&record, &around);
    let sources: Vec<_> = mounts.iter().map(|m| m.source.display().to_string()).collect();
    assert_eq!(sources, ["/files/hostname", "/files/resolv.conf", "/x"]);
}

#[test]
fn what_cannot_start_is_refused_before_anything_is_made() {
    let bad: [fn(&mut ContainerConfig); 4] = [
        |c| c.stop_signal = "SIGNOPE".into(),
        |c| c.security.add_capabilities = list(&["NOPE"]),
        |c| c.resources.cpu_shares = -1,
        |c| {
            let sub_path = "a/../../b".to_owned();
            c.mounts = vec![Mount { container_path: "/m".into(), sub_path, ..Mount::default() }];
        },
    ];
    for change in bad {
        assert!(check(&record(change)).is_err());
    }
    check(&record(|_| ())).unwrap();
}
