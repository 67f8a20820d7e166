//! Networks, published ports, volumes and mounts.

use crate::SOON;
use anyhow::{Result, ensure};
use pintle_e2e::{BUSYBOX, Engine, until};

/// A web server with one page, and what to run for it.
pub(crate) const WEB: [&str; 3] =
    ["sh", "-c", "mkdir -p /tmp/www; hostname > /tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www"];

/// What a program in a container or outside finds at an address; asked until the server is up.
pub(crate) fn page(engine: &Engine, from: Option<&str>, url: &str) -> Result<String> {
    until(&format!("{url} answers"), SOON, || {
        let ask = ["busybox", "wget", "-q", "-O", "-", url];
        let answer = match from {
            Some(container) => engine.docker(&[&["exec", container][..], &ask].concat())?,
            None => engine.host.run(&["curl", "--noproxy", "*", "-gsf", "-m", "2", url])?,
        };
        Ok(answer.status.success().then(|| answer.stdout.trim().to_owned()))
    })
}

pub fn names(engine: &Engine) -> Result<()> {
    engine.ok(&["network", "create", "--subnet", "10.99.1.0/24", "e2e-names"])?;
    engine.ok(&["network", "create", "e2e-apart"])?;
    let web = [
        "--name",
        "e2e-web",
        "--hostname",
        "web",
        "--network",
        "e2e-names",
        "--network-alias",
        "www",
        "--ip",
        "10.99.1.77",
    ];
    engine.run_detached(&web, &WEB)?;
    engine.run_detached(&["--name", "e2e-friend", "--network", "e2e-names"], &["sleep", "3600"])?;
    engine.run_detached(&["--name", "e2e-stranger", "--network", "e2e-apart"], &["sleep", "3600"])?;
    for name in ["e2e-web", "www", "10.99.1.77"] {
        ensure!(page(engine, Some("e2e-friend"), &format!("http://{name}/"))? == "web");
    }
    let wget = |url: &str| engine.code(&["exec", "e2e-stranger", "timeout", "2", "wget", "-q", "-O", "-", url]);
    ensure!(wget("http://e2e-web/")? != 0, "a name is known in another network");
    ensure!(wget("http://10.99.1.77/")? != 0, "networks are not apart");
    let address =
        engine.ok(&["inspect", "-f", "{{(index .NetworkSettings.Networks \"e2e-names\").IPAddress}}", "e2e-web"])?;
    ensure!(address == "10.99.1.77", "{address}");
    ensure!(engine.refused(&["network", "rm", "e2e-names"])?.contains("has active endpoints"));
    engine.ok(&["rm", "-f", "e2e-web", "e2e-friend", "e2e-stranger"])?;
    engine.ok(&["network", "rm", "e2e-names", "e2e-apart"])?;
    Ok(())
}

pub fn connect(engine: &Engine) -> Result<()> {
    engine.ok(&["network", "create", "--internal", "--label", "e2e=connect", "e2e-late"])?;
    engine.run_detached(&["--name", "e2e-late-web", "--hostname", "late", "--network", "e2e-late"], &WEB)?;
    engine.run_detached(&["--name", "e2e-joiner"], &["sleep", "3600"])?;
    engine.ok(&["network", "connect", "--alias", "joined", "e2e-late", "e2e-joiner"])?;
    ensure!(page(engine, Some("e2e-joiner"), "http://e2e-late-web/")? == "late");
    ensure!(engine.ok(&["network", "ls", "-q", "-f", "label=e2e=connect"])?.len() == 12);
    let members = engine.ok(&["network", "inspect", "-f", "{{len .Containers}} {{.Internal}}", "e2e-late"])?;
    ensure!(members == "2 true", "{members}");
    ensure!(engine.ok(&["exec", "e2e-joiner", "ip", "-o", "link"])?.contains("eth1"));
    engine.ok(&["network", "disconnect", "e2e-late", "e2e-joiner"])?;
    ensure!(!engine.ok(&["exec", "e2e-joiner", "ip", "-o", "link"])?.contains("eth1"));
    engine.ok(&["rm", "-f", "e2e-joiner", "e2e-late-web"])?;
    engine.ok(&["network", "rm", "e2e-late"])?;
    let shared = engine.ok(&["run", "--rm", "--network", "none", BUSYBOX, "ip", "-o", "link"])?;
    ensure!(shared.lines().count() == 1, "{shared}");
    ensure!(engine.ok(&["run", "--rm", "--network", "host", BUSYBOX, "ip", "-o", "link"])?.contains("outside"));
    Ok(())
}

pub fn ports(engine: &Engine) -> Result<()> {
    engine.run_detached(
        &["--name", "e2e-port", "--hostname", "port", "-p", "18080:80", "-p", "127.0.0.1:18081:80"],
        &WEB,
    )?;
    ensure!(page(engine, None, "http://127.0.0.1:18080/")? == "port");
    ensure!(page(engine, None, "http://127.0.0.1:18081/")? == "port");
    ensure!(page(engine, None, &format!("http://{}:18080/", engine.host.address))? == "port");
    engine.run_detached(&["--name", "e2e-caller"], &["sleep", "3600"])?;
    ensure!(page(engine, Some("e2e-caller"), &format!("http://{}:18080/", engine.host.address))? == "port");
    let taken = engine.refused(&["run", "--rm", "-p", "18080:80", BUSYBOX, "true"])?;
    ensure!(taken.contains("port is already allocated"), "{taken}");
    engine.ok(&["rm", "-f", "e2e-port", "e2e-caller"])?;
    let gone = engine.host.run(&["curl", "-sf", "-m", "2", "http://127.0.0.1:18080/"])?;
    ensure!(!gone.status.success(), "the port outlived its container");
    ensure!(!engine.host.run(&["nft", "list", "ruleset"])?.ok()?.contains("18080"), "rules outlived their container");
    Ok(())
}

pub fn volumes(engine: &Engine) -> Result<()> {
    engine.ok(&["volume", "create", "--label", "e2e=volumes", "e2e-volume"])?;
    engine.ok(&["run", "--rm", "-v", "e2e-volume:/data", BUSYBOX, "sh", "-c", "echo kept > /data/file"])?;
    ensure!(engine.ok(&["run", "--rm", "-v", "e2e-volume:/data:ro", BUSYBOX, "cat", "/data/file"])? == "kept");
    ensure!(engine.code(&["run", "--rm", "-v", "e2e-volume:/data:ro", BUSYBOX, "touch", "/data/x"])? == 1);
    ensure!(engine.ok(&["volume", "ls", "-q", "-f", "label=e2e=volumes"])? == "e2e-volume");
    engine.ok(&["create", "--name", "e2e-holder", "-v", "e2e-volume:/data", "-v", "/anonymous", BUSYBOX])?;
    ensure!(engine.refused(&["volume", "rm", "e2e-volume"])?.contains("volume is in use"));
    ensure!(engine.ok(&["run", "--rm", "--volumes-from", "e2e-holder", BUSYBOX, "cat", "/data/file"])? == "kept");
    let mounts = "{{range .Mounts}}{{if eq .Destination \"/anonymous\"}}{{.Name}}{{end}}{{end}}";
    let anonymous = engine.ok(&["inspect", "-f", mounts, "e2e-holder"])?;
    ensure!(anonymous.len() == 64, "{anonymous}");
    engine.ok(&["rm", "-v", "e2e-holder"])?;
    ensure!(engine.refused(&["volume", "inspect", &anonymous])?.contains("no such volume"));
    // A new volume takes what the image has at its place, with the owner and mode.
    let copied = engine.ok(&["run", "--rm", "-v", "e2e-volume2:/tmp", BUSYBOX, "sh", "-c", "ls -ld /tmp"])?;
    ensure!(copied.starts_with("drwxrwxrwt"), "{copied}");
    engine.ok(&["volume", "rm", "e2e-volume", "e2e-volume2"])?;
    Ok(())
}

pub fn mounts(engine: &Engine) -> Result<()> {
    let folder = engine.path("bound");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("file"), "bound")?;
    let source = folder.to_string_lossy();
    let run =
        |mount: &str, words: &[&str]| engine.docker(&[&["run", "--rm", "--mount", mount, BUSYBOX][..], words].concat());
    ensure!(run(&format!("type=bind,src={source},dst=/m"), &["cat", "/m/file"])?.ok()? == "bound");
    ensure!(!run(&format!("type=bind,src={source},dst=/m,readonly"), &["touch", "/m/x"])?.status.success());
    ensure!(run("type=tmpfs,dst=/m,tmpfs-size=1048576", &["df", "-k", "/m"])?.ok()?.contains(" 1024 "));
    ensure!(run("type=volume,dst=/m", &["touch", "/m/x"])?.status.success());
    let missing = run(&format!("type=bind,src={source}/none,dst=/m"), &["true"])?.failed()?;
    ensure!(missing.contains("bind source path does not exist"), "{missing}");
    Ok(())
}
