//! Images: built, changed, carried in archives and through a real registry.

use crate::SOON;
use anyhow::{Result, ensure};
use pintle_e2e::{BUSYBOX, Engine, Spawned};
use serde_json::Value;

pub fn changes(engine: &Engine) -> Result<()> {
    let script = "echo new > /etc/new; echo more >> /etc/group; rm /bin/httpd";
    engine.ok(&["run", "--name", "e2e-changes", BUSYBOX, "sh", "-c", script])?;
    let diff = engine.ok(&["diff", "e2e-changes"])?;
    for line in ["C /etc", "A /etc/new", "C /etc/group", "C /bin", "D /bin/httpd"] {
        ensure!(diff.lines().any(|l| l == line), "no {line} in\n{diff}");
    }
    let id = engine.ok(&[
        "commit",
        "-m",
        "why",
        "-c",
        "ENV SET=yes",
        "-c",
        "CMD [\"cat\",\"/etc/new\"]",
        "e2e-changes",
        "e2e/changed",
    ])?;
    ensure!(id.starts_with("sha256:"), "{id}");
    ensure!(engine.ok(&["run", "--rm", "e2e/changed"])? == "new");
    ensure!(engine.code(&["run", "--rm", "e2e/changed", "test", "-e", "/bin/httpd"])? == 1);
    ensure!(engine.ok(&["run", "--rm", "e2e/changed", "sh", "-c", "echo $SET"])? == "yes");
    engine.shell("docker export e2e-changes | docker import -c 'CMD [\"cat\",\"/etc/new\"]' - e2e/flat")?;
    ensure!(engine.ok(&["run", "--rm", "e2e/flat"])? == "new");
    ensure!(engine.ok(&["inspect", "-f", "{{len .RootFS.Layers}}", "e2e/flat"])? == "1");
    engine.ok(&["rm", "e2e-changes"])?;
    engine.ok(&["rmi", "e2e/changed", "e2e/flat"])?;
    Ok(())
}

const DOCKERFILE: &str = r#"FROM e2e/busybox:1 AS make
ARG WORD=nothing
WORKDIR /made
COPY . .
RUN echo "$WORD" > word && ls > list

FROM e2e/busybox:1
LABEL e2e=build
ENV PLACE=/srv
COPY --from=make /made/word /made/list ${PLACE}/
COPY --chmod=755 <<EOF /bin/tell
#!/bin/sh
cat /srv/word /srv/list
EOF
HEALTHCHECK NONE
USER 65534
ENTRYPOINT ["/bin/tell"]
"#;

pub fn build(engine: &Engine) -> Result<()> {
    let folder = engine.path("context");
    std::fs::create_dir_all(&folder)?;
    for (name, content) in
        [("Dockerfile", DOCKERFILE), (".dockerignore", "secret*\n"), ("kept", ""), ("secret.txt", "")]
    {
        std::fs::write(folder.join(name), content)?;
    }
    let folder = folder.to_string_lossy();
    let arguments = ["build", "-t", "e2e/built", "--build-arg", "WORD=spoken", &folder];
    let first = engine.ok(&arguments)?;
    ensure!(first.contains("Successfully tagged e2e/built:latest") && !first.contains("Using cache"), "{first}");
    let told = engine.ok(&["run", "--rm", "e2e/built"])?;
    ensure!(told == "spoken\nDockerfile\nkept\nlist\nword", "{told}");
    let second = engine.ok(&arguments)?;
    ensure!(second.matches("Using cache").count() > 5, "{second}");
    let other = engine.ok(&["build", "-q", "--build-arg", "WORD=other", &folder])?;
    ensure!(engine.ok(&["run", "--rm", &other])?.starts_with("other"));
    let stage = engine.ok(&["build", "-q", "--target", "make", &folder])?;
    ensure!(engine.ok(&["inspect", "-f", "{{.Config.WorkingDir}}", &stage])? == "/made");
    let failing = "FROM e2e/busybox:1\nRUN exit 3\n";
    let failed = engine.shell(&format!("printf '{}' | docker build - 2>&1 || true", failing.replace('\n', "\\n")))?;
    ensure!(failed.contains("The command '/bin/sh -c exit 3' returned a non-zero code: 3"), "{failed}");
    engine.ok(&["rmi", "e2e/built"])?;
    Ok(())
}

pub fn archives(engine: &Engine) -> Result<()> {
    engine.ok(&["tag", BUSYBOX, "e2e/one:a"])?;
    engine.ok(&["tag", BUSYBOX, "e2e/one:b"])?;
    ensure!(engine.ok(&["images", "--format", "{{.Tag}}", "e2e/one"])?.lines().count() == 2);
    // An image of its own, so that its removal takes nothing from other tests.
    engine.shell("printf 'FROM e2e/busybox:1\\nRUN echo kept > /kept\\n' | docker build -q -t e2e/kept -")?;
    ensure!(engine.ok(&["history", "--no-trunc", "e2e/kept"])?.contains("echo kept > /kept"));
    let archive = engine.path("saved.tar").to_string_lossy().into_owned();
    engine.ok(&["save", "-o", &archive, "e2e/kept", "e2e/one:a"])?;
    let id = engine.ok(&["inspect", "-f", "{{.Id}}", "e2e/kept"])?;
    ensure!(engine.ok(&["rmi", "e2e/one:a", "e2e/one:b", "e2e/kept"])?.contains(&format!("Deleted: {id}")));
    let loaded = engine.ok(&["load", "-i", &archive])?;
    ensure!(loaded.contains("Loaded image: e2e/kept:latest") && loaded.contains("Loaded image: e2e/one:a"), "{loaded}");
    ensure!(engine.ok(&["inspect", "-f", "{{.Id}}", "e2e/kept"])? == id);
    ensure!(engine.ok(&["run", "--rm", "e2e/kept", "cat", "/kept"])? == "kept");
    engine.ok(&["create", "--name", "e2e-user", "e2e/kept"])?;
    ensure!(engine.refused(&["rmi", &id])?.contains("conflict"));
    engine.ok(&["rm", "e2e-user"])?;
    engine.ok(&["rmi", "e2e/kept", "e2e/one:a"])?;
    Ok(())
}

/// Debian's registry on a port of the engine's network.
pub fn registry_on(engine: &Engine, port: u16) -> Result<Spawned> {
    start_registry(engine, port, "")
}

/// One that lets only `me` with the password `secret` in.
pub fn locked_registry_on(engine: &Engine, port: u16) -> Result<Spawned> {
    let users = engine.path(&format!("users-{port}"));
    std::fs::write(&users, engine.shell("htpasswd -Bbn me secret")?)?;
    start_registry(engine, port, &format!("auth: {{htpasswd: {{realm: here, path: {}}}}}\n", users.display()))
}

fn start_registry(engine: &Engine, port: u16, further: &str) -> Result<Spawned> {
    let folder = engine.path(&format!("registry-{port}"));
    std::fs::create_dir_all(&folder)?;
    let root = folder.display();
    let settings = format!(
        "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {root}/data}}, delete: {{enabled: true}}}}\n\
         http: {{addr: '127.0.0.1:{port}'}}\n{further}"
    );
    std::fs::write(folder.join("config.yml"), settings)?;
    let mut command = engine.command("docker-registry");
    command.arg("serve").arg(folder.join("config.yml"));
    let registry = engine.start_program(command)?;
    registry.expect("listening on", SOON)?;
    Ok(registry)
}

pub fn registry(engine: &Engine) -> Result<()> {
    let _registry = registry_on(engine, 5000)?;
    let name = "127.0.0.1:5000/e2e/carried:1";
    engine.shell(&format!("printf 'FROM e2e/busybox:1\\nRUN echo far > /far\\n' | docker build -q -t {name} -"))?;
    let pushed = engine.ok(&["push", name])?;
    ensure!(pushed.contains("1: digest: sha256:"), "{pushed}");
    let id = engine.ok(&["inspect", "-f", "{{.Id}}", name])?;
    engine.ok(&["rmi", name])?;
    let pulled = engine.ok(&["pull", name])?;
    ensure!(pulled.contains(&format!("Status: Downloaded newer image for {name}")), "{pulled}");
    ensure!(engine.ok(&["inspect", "-f", "{{.Id}}", name])? == id);
    ensure!(engine.ok(&["run", "--rm", name, "cat", "/far"])? == "far");
    ensure!(engine.ok(&["pull", name])?.contains("Image is up to date"));
    let digest = engine.ok(&["inspect", "-f", "{{index .RepoDigests 0}}", name])?;
    engine.ok(&["rmi", name])?;
    // `run` pulls what is missing, here by its digest.
    ensure!(engine.ok(&["run", "--rm", &digest, "cat", "/far"])? == "far");
    ensure!(engine.refused(&["pull", "127.0.0.1:5000/e2e/none"])?.contains("not found"));
    engine.ok(&["rmi", &digest])?;
    Ok(())
}

/// Steps of an image that came from a registry are not done again.
pub fn cache_from(engine: &Engine) -> Result<()> {
    let _registry = registry_on(engine, 5008)?;
    let told = engine.shell(
        r#"image=127.0.0.1:5008/e2e/cached
        dockerfile() { printf 'FROM e2e/busybox:1\nRUN cat /proc/sys/kernel/random/uuid > /once\nENV A=%s\nRUN echo $A > /last\n' $1; }
        dockerfile one | docker build -q -t $image -
        once=$(docker run --rm $image cat /once)
        docker push -q $image; docker rmi $image
        docker pull -q $image
        dockerfile one | docker build --cache-from $image -t e2e/again - > told
        test $(grep -c 'Using cache' told) = 3
        test "$(docker image inspect -f '{{.Id}}' e2e/again)" = "$(docker image inspect -f '{{.Id}}' $image)"
        dockerfile two | docker build --cache-from $image -t e2e/other - > told
        test $(grep -c 'Using cache' told) = 1
        test "$(docker run --rm e2e/other cat /once /last)" = "$(printf '%s\ntwo' $once)"
        # Nothing of an image that has gone another way is taken, also where the cache has it.
        dockerfile two | docker build --cache-from e2e/busybox:1 -q -t e2e/fresh -
        test "$(docker run --rm e2e/fresh cat /once)" != $once
        docker rmi $image e2e/again e2e/other e2e/fresh"#,
    )?;
    ensure!(told.contains("Untagged: e2e/fresh:latest"), "{told}");
    Ok(())
}

/// `docker import` from a web server, which also says no.
pub fn import_from_address(engine: &Engine) -> Result<()> {
    engine.shell(
        "mkdir -p web; docker create --name e2e-web e2e/busybox:1; docker export -o web/root.tar e2e-web; gzip -k web/root.tar",
    )?;
    let mut server = engine.command("python3");
    server.args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", "web", "5009"]);
    let server = engine.start_program(server)?;
    server.expect("Serving HTTP", SOON)?;
    for file in ["http://127.0.0.1:5009/root.tar", "http://127.0.0.1:5009/root.tar.gz"] {
        let told = engine.ok(&["import", "-c", "CMD [\"echo\",\"from far\"]", file, "e2e/far"])?;
        ensure!(told.contains("Downloading from http://") && told.contains("sha256:"), "{told}");
        ensure!(engine.ok(&["run", "--rm", "e2e/far"])? == "from far");
    }
    let missing = engine.refused(&["import", "http://127.0.0.1:5009/none", "e2e/none"])?;
    ensure!(missing.contains("404"), "{missing}");
    engine.refused(&["import", "http://127.0.0.1:1/none", "e2e/none"])?;
    engine.ok(&["rm", "e2e-web"])?;
    engine.ok(&["rmi", "e2e/far"])?;
    Ok(())
}

pub fn skopeo(engine: &Engine) -> Result<()> {
    let _registry = registry_on(engine, 5001)?;
    let archive = engine.path("skopeo.tar").display().to_string();
    engine.ok(&["tag", BUSYBOX, "127.0.0.1:5001/e2e/ours"])?;
    engine.ok(&["push", "127.0.0.1:5001/e2e/ours"])?;
    engine.ok(&["save", "-o", &archive, BUSYBOX])?;
    let insecure = "--tls-verify=false";
    let seen = engine.shell(&format!("skopeo inspect {insecure} docker://127.0.0.1:5001/e2e/ours"))?;
    let seen: Value = serde_json::from_str(&seen)?;
    ensure!(seen["Os"] == "linux" && seen["Layers"].as_array().is_some_and(|l| l.len() == 1), "{seen}");
    // Our archive to the registry by skopeo, and back through an OCI layout.
    let policy = "skopeo --insecure-policy copy --quiet";
    engine.shell(&format!(
        "{policy} --dest-tls-verify=false docker-archive:{archive} docker://127.0.0.1:5001/e2e/theirs
         {policy} docker-archive:{archive} oci-archive:{archive}.oci:e2e/oci:1
         {policy} docker-archive:{archive} docker-archive:{archive}.docker:e2e/again:1"
    ))?;
    engine.ok(&["pull", "127.0.0.1:5001/e2e/theirs"])?;
    engine.ok(&["load", "-i", &format!("{archive}.docker")])?;
    ensure!(engine.ok(&["run", "--rm", "e2e/again:1", "echo", "read"])? == "read");
    ensure!(engine.ok(&["load", "-i", &format!("{archive}.oci")])?.contains("Loaded image"));
    engine.ok(&["rmi", "127.0.0.1:5001/e2e/theirs", "127.0.0.1:5001/e2e/ours", "e2e/again:1"])?;
    Ok(())
}
