//! What people meet rarely: links, settings of connections, images as mounts, what is told before and beside.

use crate::images::registry_on;
use anyhow::{Result, ensure};
use pintle_e2e::{BUSYBOX, Engine, Subject};
use rustix::process::Signal;

/// `--link` is names and variables on the default network, and a name for one container alone on others.
pub fn links(engine: &Engine) -> Result<()> {
    engine.run_detached(&["--name", "e2e-db", "--expose", "5432", "-e", "KIND=sql"], &["sleep", "3600"])?;
    let told = engine.ok(&["run", "--rm", "--link", "e2e-db:the-db", BUSYBOX, "sh", "-c", "cat /etc/hosts; env"])?;
    for part in ["the-db", "THE_DB_PORT_5432_TCP_PORT=5432", "THE_DB_ENV_KIND=sql", "THE_DB_NAME=/"] {
        ensure!(told.contains(part), "{part}: {told}");
    }
    let missing = engine.refused(&["run", "--rm", "--link", "e2e-none", BUSYBOX, "true"])?;
    ensure!(missing.contains("could not get container for e2e-none: No such container: e2e-none"), "{missing}");
    engine.ok(&["network", "create", "e2e-linked"])?;
    engine.ok(&["network", "connect", "e2e-linked", "e2e-db"])?;
    let linked = ["--rm", "--network", "e2e-linked", "--link", "e2e-db:storage", BUSYBOX];
    engine.ok(&[&["run"][..], &linked, &["nslookup", "storage"]].concat())?;
    engine.ok(&["rm", "-f", "e2e-db"])?;
    engine.ok(&["network", "rm", "e2e-linked"])?;
    Ok(())
}

/// Options of one connection: its interface's name and settings, and further addresses.
pub fn connections(engine: &Engine) -> Result<()> {
    engine.ok(&["network", "create", "e2e-endpoint"])?;
    let options = "name=e2e-endpoint,driver-opt=com.docker.network.endpoint.ifname=front0,\
                   \"driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1\"";
    let told = engine.ok(&[
        "run",
        "--rm",
        "--network",
        options,
        BUSYBOX,
        "sh",
        "-c",
        "ip -4 addr show front0; cat /proc/sys/net/ipv4/conf/front0/log_martians",
    ])?;
    ensure!(told.contains("inet ") && told.ends_with("\n1"), "{told}");
    let addressed = ["--network", "e2e-endpoint", "--link-local-ip", "169.254.8.8"];
    let told =
        engine.ok(&[&["run", "--rm"][..], &addressed, &[BUSYBOX, "ip", "-4", "addr", "show", "eth0"]].concat())?;
    ensure!(told.contains("169.254.8.8/16"), "{told}");
    let wrong = "name=e2e-endpoint,driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.ip_forward=1";
    let said = engine.refused(&["run", "--rm", "--network", wrong, BUSYBOX, "true"])?;
    ensure!(said.contains("unrecognised network interface sysctl"), "{said}");
    engine.ok(&["network", "rm", "e2e-endpoint"])?;
    Ok(())
}

/// The files of every container, and those of an image beside them.
pub fn files(engine: &Engine) -> Result<()> {
    engine.ok(&["run", "--name", "e2e-files", BUSYBOX, "sh", "-c", "test -f /.dockerenv && test -L /etc/mtab"])?;
    ensure!(engine.ok(&["diff", "e2e-files"])?.is_empty());
    engine.ok(&["rm", "e2e-files"])?;
    let mount = format!("type=image,src={BUSYBOX},dst=/image,image-subpath=bin");
    let mounted =
        engine.docker(&["run", "--rm", "--mount", &mount, BUSYBOX, "sh", "-c", "ls /image/sh; touch /image/x"])?;
    ensure!(mounted.stdout.trim() == "/image/sh" && mounted.stderr.contains("Read-only file system"), "{mounted:?}");
    ensure!(mounted.stderr.contains("WARNING: Image mount is an experimental feature"), "{mounted:?}");
    let volume = "type=volume,src=e2e-part,dst=/x,volume-subpath=none";
    let said = engine.refused(&["run", "--rm", "--mount", volume, BUSYBOX, "true"])?;
    ensure!(said.contains("cannot access path") && said.contains("no such file or directory"), "{said}");
    engine.ok(&["volume", "rm", "e2e-part"])?;
    Ok(())
}

/// Failures that come before anything else are answers of the daemon; what runs has details beside its lines.
pub fn told(engine: &Engine) -> Result<()> {
    let said = engine.refused(&["pull", "127.0.0.1:1/none"])?;
    ensure!(said.starts_with("Error response from daemon: ") && said.contains("connection refused"), "{said}");
    let published = engine.docker(&["run", "--rm", "--network", "host", "-p", "80:80", BUSYBOX, "true"])?;
    ensure!(published.stderr.contains("WARNING: Published ports are discarded when using host network mode"));
    let sysctl = engine.refused(&["run", "--rm", "--sysctl", "net.none.x=1", BUSYBOX, "true"])?;
    ensure!(sysctl.contains("no such file or directory") && !sysctl.contains("os error"), "{sysctl}");
    let options = ["--label", "a=b", "--log-opt", "labels=a", "--log-opt", "max-size=1k", "--log-opt", "max-file=2"];
    let lines = ["sh", "-c", "i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); done"];
    engine.ok(&[&["run", "--name", "e2e-lines"], &options[..], &[BUSYBOX], &lines].concat())?;
    let kept = engine.ok(&["logs", "--details", "e2e-lines"])?;
    let count = kept.lines().count();
    ensure!(kept.ends_with("a=b line 99") && (10..40).contains(&count), "{count} lines: {kept}");
    engine.ok(&["rm", "e2e-lines"])?;
    let names = |pattern: &str| engine.ok(&["volume", "ls", "-q", "-f", &format!("name={pattern}")]);
    engine.ok(&["volume", "create", "e2e-regular-7"])?;
    ensure!(names("^e2e-.*-[0-9]$")? == "e2e-regular-7" && names("^regular")?.is_empty());
    engine.ok(&["volume", "rm", "e2e-regular-7"])?;
    Ok(())
}

/// Images of docker.io come from a mirror, when the engine is told of one.
pub fn mirrors(_: &Engine) -> Result<()> {
    let engine = Engine::start()?;
    let registry = registry_on(&engine, 5012)?;
    engine.shell(
        "docker tag e2e/busybox:1 127.0.0.1:5012/library/e2e-mirrored:1
         docker push -q 127.0.0.1:5012/library/e2e-mirrored:1
         docker rmi 127.0.0.1:5012/library/e2e-mirrored:1",
    )?;
    engine.stop_daemon(Signal::TERM)?;
    engine.start_daemon_with(&["--registry-mirror".to_owned(), "http://127.0.0.1:5012".to_owned()])?;
    ensure!(engine.ok(&["info", "-f", "{{json .RegistryConfig.Mirrors}}"])? == r#"["http://127.0.0.1:5012/"]"#);
    let pulled = engine.ok(&["pull", "e2e-mirrored:1"])?;
    ensure!(pulled.contains("docker.io/library/e2e-mirrored:1"), "{pulled}");
    engine.ok(&["rmi", "e2e-mirrored:1"])?;
    engine.stop_daemon(Signal::TERM)?;
    let refused = engine.refused_start(&["--registry-mirror".to_owned(), "https://mirror/path".to_owned()])?;
    ensure!(refused.contains("a mirror has no path"), "{refused}");
    engine.start_daemon()?;
    drop(registry);
    engine.finish()
}
