//! Dockerfiles: what is inherited, documents, archives, and builds that nobody waits for any more.

use crate::SOON;
use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Engine, Spawned, until};
use rustix::process::Signal;
use std::path::PathBuf;

/// A folder with files to build from.
fn context(engine: &Engine, name: &str, files: &[(&str, &str)]) -> Result<PathBuf> {
    let folder = engine.path(name);
    std::fs::create_dir_all(&folder)?;
    for (file, content) in files {
        std::fs::write(folder.join(file), content)?;
    }
    Ok(folder)
}

const PARENT: &str = r#"FROM e2e/busybox:1
HEALTHCHECK --interval=7s --retries=2 CMD true
ONBUILD RUN echo triggered > /triggered
ONBUILD COPY plain.txt /from-child
ONBUILD LABEL by=parent
SHELL ["/bin/sh", "-e", "-c"]
STOPSIGNAL SIGUSR1
CMD echo said
"#;

const CHILD: &str = r#"FROM e2e/parent
RUN cat /triggered /from-child > /both; echo "$0" > /shell
HEALTHCHECK NONE
STOPSIGNAL 12
SHELL ["/bin/busybox", "ash", "-c"]
RUN echo "$0" >> /shell
"#;

/// ONBUILD, SHELL, STOPSIGNAL and HEALTHCHECK, in an image and in one that is built from it.
pub fn inherited(engine: &Engine) -> Result<()> {
    let folder = context(
        engine,
        "inherited",
        &[("Parent", PARENT), ("Child", CHILD), ("plain.txt", "plain\n"), ("Failing", FAILING)],
    )?;
    let folder = folder.to_string_lossy();
    let file = |name: &str| format!("{folder}/{name}");
    engine.ok(&["build", "-q", "-t", "e2e/parent", "-f", &file("Parent"), &folder])?;
    let settings = "{{json .Config.Shell}} {{.Config.StopSignal}} {{json .Config.Healthcheck}} {{json .Config.Cmd}}";
    let told = engine.ok(&["inspect", "-f", settings, "e2e/parent"])?;
    ensure!(
        told == r#"["/bin/sh","-e","-c"] SIGUSR1 {"Test":["CMD-SHELL","true"],"Interval":7000000000,"Retries":2} ["/bin/sh","-e","-c","echo said"]"#,
        "{told}"
    );
    let triggers = engine.ok(&["inspect", "-f", "{{join .Config.OnBuild \"; \"}}", "e2e/parent"])?;
    ensure!(triggers == "RUN echo triggered > /triggered; COPY plain.txt /from-child; LABEL by=parent", "{triggers}");
    ensure!(engine.docker(&["run", "--rm", "e2e/parent", "ls", "/triggered"])?.status.code() == Some(1));
    let built = engine.ok(&["build", "-t", "e2e/child", "-f", &file("Child"), &folder])?;
    ensure!(built.contains("# Executing 3 build triggers"), "{built}");
    let told = engine.ok(&["inspect", "-f", &format!("{settings} {{{{.Config.Labels.by}}}}"), "e2e/child"])?;
    // What the parent says to do is not said again, and its command goes with its shell.
    ensure!(
        told == r#"["/bin/busybox","ash","-c"] 12 {"Test":["NONE"]} ["/bin/sh","-e","-c","echo said"] parent"#,
        "{told}"
    );
    ensure!(engine.ok(&["inspect", "-f", "{{json .Config.OnBuild}}", "e2e/child"])? == "null");
    let seen = engine.ok(&["run", "--rm", "e2e/child", "cat", "/both", "/shell"])?;
    ensure!(seen == "triggered\nplain\n/bin/sh\nash", "{seen}");
    ensure!(engine.ok(&["run", "--rm", "e2e/child"])? == "said");
    let failed = engine.refused(&["build", "-f", &file("Failing"), &folder])?;
    ensure!(failed.contains("The command '/bin/sh -e -c false; true' returned a non-zero code: 1"), "{failed}");
    for (line, words) in [
        ("ONBUILD ONBUILD RUN true", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("SHELL sh -c", "SHELL requires the arguments to be in JSON form"),
        ("STOPSIGNAL NONE", "NONE"),
        ("HEALTHCHECK NONE true", "HEALTHCHECK NONE takes no arguments"),
    ] {
        let said = engine.shell(&format!("! printf 'FROM e2e/busybox:1\\n{line}\\n' | docker build -q - 2>&1"))?;
        ensure!(said.contains(words), "{line}: {said}");
    }
    engine.ok(&["rmi", "e2e/child", "e2e/parent"])?;
    Ok(())
}

const FAILING: &str = "FROM e2e/parent\nRUN false; true\n";

const DOCUMENTS: &str = r#"FROM e2e/busybox:1
ENV WHO=world
ARG WHERE=here
RUN <<EOF
set -e
echo "hello $WHO" > /first
echo second > /second
EOF
RUN <<-"QUOTED" cat > /quoted
	tab $WHO
	QUOTED
RUN <<ONE cat - > /one && <<TWO cat - > /two
first $WHO
ONE
second
TWO
COPY <<EOF /copied
$WHO ${WHERE}
EOF
COPY --chmod=640 --chown=65534:65534 <<'A' <<B /folder/
raw $WHO
A
filled $WHO
B
USER 65534
"#;

/// Documents in RUN and COPY: for the shell, with an interpreter of their own, as files.
pub fn documents(engine: &Engine) -> Result<()> {
    let script = "RUN <<PROGRAM\n#!/bin/tail -n+2\nread as it stands $WHO\nPROGRAM\n";
    let last = "USER 0\nRUN <<PROGRAM\n#!/bin/busybox ash\necho by its own: $1 > /by-program\nPROGRAM\n";
    let with = |last: &str| context(engine, "documents", &[("Dockerfile", &format!("{DOCUMENTS}{script}{last}"))]);
    let folder = with(last)?;
    let folder = folder.to_string_lossy();
    let built = engine.ok(&["build", "-t", "e2e/documents", &folder])?;
    ensure!(built.contains("\nread as it stands $WHO\n"), "{built}");
    let files =
        "cd /; cat first second quoted one two copied folder/A folder/B by-program; stat -c '%a %u %g' folder/A";
    let files = files.replace("stat", "busybox stat");
    let seen = engine.ok(&["run", "--rm", "--user", "0", "e2e/documents", "sh", "-c", &files])?;
    ensure!(
        seen == "hello world\nsecond\ntab $WHO\nfirst world\nsecond\nworld here\nraw $WHO\nfilled world\nby its own:\n640 65534 65534",
        "{seen}"
    );
    ensure!(engine.docker(&["run", "--rm", "e2e/documents", "ls", "/dev/pipes"])?.status.code() == Some(1));
    // The text of a document is what its step is known by.
    let again = engine.ok(&["build", &folder])?;
    ensure!(again.matches("Using cache").count() == 11, "{again}");
    with(&last.replace("by its own: $1", "anew"))?;
    let other = engine.ok(&["build", "-q", &folder])?;
    ensure!(engine.ok(&["run", "--rm", &other, "cat", "/by-program"])? == "anew");
    engine.ok(&["rmi", "e2e/documents", &other])?;
    Ok(())
}

/// ADD unpacks archives however they are compressed, COPY does not; `--link` copies.
pub fn archives(engine: &Engine) -> Result<()> {
    let mut lines = format!("FROM {BUSYBOX}\n");
    for form in ["tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst"] {
        lines.push_str(&format!("ADD a.{form} /{form}/\n"));
    }
    lines.push_str(
        "ADD plain.txt plain.gz /plain/\nCOPY a.tar.xz /copied/\nADD --chown=5:6 a.tar /owned/\n\
         COPY --link plain.txt /linked/file\nCOPY --link --chown=1:2 --chmod=700 tree /linked-tree\n",
    );
    let folder = context(engine, "archives", &[("Dockerfile", &lines), ("plain.txt", "plain\n")])?;
    let folder = folder.to_string_lossy();
    engine.shell(&format!(
        "cd {folder}; mkdir -p tree/below; echo one > tree/one; ln -s ../one tree/below/link; chmod 751 tree/below
         tar --owner=7 --group=8 -cf a.tar tree; gzip -k a.tar; bzip2 -k a.tar; xz -k a.tar; zstd -q a.tar; gzip -kc plain.txt > plain.gz"
    ))?;
    engine.ok(&["build", "-q", "-t", "e2e/archives", &folder])?;
    let inside = |lines: &str| engine.ok(&["run", "--rm", "e2e/archives", "sh", "-ec", lines]);
    let told = inside("for f in /tar*; do cat $f/tree/below/link; busybox stat -c '%a %u:%g' $f/tree/below; done")?;
    ensure!(told == ["one\n751 7:8"; 5].join("\n"), "{told}");
    ensure!(inside("ls /plain /copied")? == "/copied:\na.tar.xz\n\n/plain:\nplain.gz\nplain.txt");
    let owners = inside(
        "busybox stat -c '%a %u:%g' /owned/tree/below /linked/file /linked-tree/one; cat /linked-tree/below/link",
    )?;
    ensure!(owners == "751 7:8\n644 0:0\n700 1:2\none", "{owners}");
    // An archive that breaks off is no smaller archive.
    engine.shell(&format!(
        "cd {folder}; head -c 100000 /dev/urandom > tree/noise; tar -c tree | xz | head -c 60000 > cut.tar.xz"
    ))?;
    std::fs::write(engine.path("archives/Dockerfile"), format!("FROM {BUSYBOX}\nADD cut.tar.xz /\n"))?;
    engine.refused(&["build", "-q", &folder])?;
    engine.ok(&["rmi", "e2e/archives"])?;
    Ok(())
}

/// Contexts, images, root file systems and copies are read however they are compressed.
pub fn compressed(engine: &Engine) -> Result<()> {
    let lines = format!("FROM {BUSYBOX}\nCOPY word /word\n");
    let folder = context(engine, "compressed", &[("Dockerfile", &lines), ("word", "carried")])?;
    let within = |script: &str| engine.shell(&format!("cd {}\n{script}", folder.display()));
    within(
        "head -c 200000 /dev/urandom > noise; tar -cf context.tar Dockerfile word noise
         docker build -q -t e2e/compressed - < context.tar; docker save -o image.tar e2e/compressed
         docker import context.tar e2e/flat",
    )?;
    let layers = || engine.ok(&["inspect", "-f", "{{.RootFS.Layers}}", "e2e/flat"]);
    let (built, flat) = (engine.ok(&["inspect", "-f", "{{.Id}}", "e2e/compressed"])?, layers()?);
    for program in ["gzip", "bzip2", "xz", "zstd"] {
        let again = within(&format!("{program} -c context.tar | docker build -q -"))?;
        ensure!(again.trim() == built, "{program}: {again}");
        let loaded = within(&format!("{program} -c image.tar | docker load"))?;
        ensure!(loaded.contains("Loaded image: e2e/compressed:latest"), "{program}: {loaded}");
        within(&format!("{program} -c context.tar | docker import - e2e/flat"))?;
        ensure!(layers()? == flat, "{program}");
        let copied = within(&format!(
            "docker create --name e2e-copied e2e/compressed > created; {program} -c context.tar | docker cp - e2e-copied:/etc
             docker cp e2e-copied:/etc/word - | tar -xO; docker rm e2e-copied > removed"
        ))?;
        ensure!(copied == "carried", "{program}: {copied}");
    }
    // What breaks off is refused, with what the program says of it.
    within("xz -c image.tar | head -c 100000 > cut.tar.xz; xz -c context.tar | head -c 100000 > cut-context.tar.xz")?;
    for command in ["load", "import - e2e/cut", "build -"] {
        let file = if command == "build -" { "cut-context.tar.xz" } else { "cut.tar.xz" };
        let said = within(&format!("! docker {command} < {file} 2>&1"))?;
        ensure!(said.contains("Unexpected end of input"), "{command}: {said}");
    }
    engine.ok(&["rmi", "e2e/compressed", "e2e/flat"])?;
    Ok(())
}

/// A build whose client goes ends with all of its step: container, process, mounts, layer.
pub fn cancelled(engine: &Engine) -> Result<()> {
    for (number, flags, signal) in
        [(54321, &[][..], Signal::INT), (54322, &[], Signal::KILL), (54323, &["-q"], Signal::KILL)]
    {
        let name = format!("cancelled-{number}");
        let sleeping = format!("sleep {number}");
        let lines = format!(
            "FROM {BUSYBOX}\nRUN echo before > /before\nRUN echo within > /within; {sleeping}\nRUN echo after\n"
        );
        let folder = context(engine, &name, &[("Dockerfile", &lines)])?;
        let tag = format!("e2e/{name}");
        let folder = folder.to_string_lossy();
        let words = [&["build", "--no-cache", "-t", &tag][..], flags, &[&folder]].concat();
        let client = engine.spawn(&words)?;
        let id = container_that(engine, &sleeping)?;
        end(client, signal)?;
        until(&format!("{words:?} leaves nothing"), SOON, || {
            let left = left_of(engine, &id, &sleeping)?;
            ensure!(left.is_empty(), "{}", left.join("\n"));
            Ok(Some(()))
        })?;
        engine.refused(&["image", "inspect", &tag])?;
    }
    Ok(())
}

/// The container that runs a step.
fn container_that(engine: &Engine, sleeping: &str) -> Result<String> {
    until(&format!("a step that runs {sleeping}"), SOON, || {
        let running = engine.ok(&["ps", "--no-trunc", "--format", "{{.ID}} {{.Command}}"])?;
        let line = running.lines().find(|line| line.contains(sleeping));
        let id = line.and_then(|line| line.split(' ').next()).map(str::to_owned);
        // The step itself has begun as well.
        Ok(id.filter(|_| !processes(sleeping).is_empty()))
    })
}

fn end(mut client: Spawned, signal: Signal) -> Result<()> {
    client.signal(signal)?;
    client.wait().map(drop)
}

/// Processes with exactly these words.
fn processes(words: &str) -> Vec<String> {
    let wanted = format!("{}\0", words.replace(' ', "\0"));
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    // What ends meanwhile is not there.
    let own =
        all.filter(|entry| std::fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|line| line == wanted));
    own.map(|entry| format!("process {}", entry.file_name().to_string_lossy())).collect()
}

/// What is there of a container, and of what it runs.
fn left_of(engine: &Engine, id: &str, words: &str) -> Result<Vec<String>> {
    let mut left = processes(words);
    for folder in ["data/docker/containers", "data/images/snapshots", "run/engine/sandboxes"] {
        let entries = std::fs::read_dir(engine.path(folder)).with_context(|| folder.to_owned())?;
        left.extend(entries.flatten().map(|e| e.path().display().to_string()).filter(|path| path.contains(id)));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    left.extend(mounts.lines().filter(|line| line.contains(id)).map(str::to_owned));
    let cgroups = engine.container_cgroups()?.into_iter().map(|path| path.display().to_string());
    left.extend(cgroups.filter(|path| path.contains(id)));
    if engine.docker(&["inspect", id])?.status.success() {
        left.push(format!("container {id}"));
    }
    Ok(left)
}
