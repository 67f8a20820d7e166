//! Published attacks on Docker's own parts, tried again on the engine: copies, requests, builds and their cache.
//!
//! Those on the runtime and on archives are tested where their defences are; docs/security.md has the table.

use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Engine, suite_on};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

fn main() -> ExitCode {
    suite_on::<Engine>(&[
        ("CVE-2018-15664: copies stay inside while links are swapped", copies),
        ("CVE-2024-41110: a body counts the same however it is sent", bodies),
        ("CVE-2024-23652, -23653: build steps are confined", build_steps),
        ("CVE-2024-23651: a build's files stay inside through links", build_links),
        ("CVE-2024-24557: nobody else's image passes for a step's result", cache),
    ])
}

/// Exchanges two names without end, until it is dropped.
struct Swapping {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    count: Arc<AtomicUsize>,
}

impl Swapping {
    fn start(one: PathBuf, other: PathBuf) -> Self {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (told, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                if renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).is_ok() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { stop, thread: Some(thread), count }
    }
}

impl Drop for Swapping {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// A folder of the host that nothing may read from or write to.
fn outside(engine: &Engine, name: &str) -> Result<PathBuf> {
    let folder = engine.path(name);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("file"), "of the host")?;
    Ok(folder)
}

fn untouched(folder: &Path) -> Result<()> {
    let names: Vec<String> =
        std::fs::read_dir(folder)?.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect::<Result<_>>()?;
    ensure!(names == ["file"], "written outside: {names:?}");
    ensure!(std::fs::read(folder.join("file"))? == b"of the host");
    Ok(())
}

/// A container exchanges a directory for a link to the host while it is copied from and to.
fn copies(engine: &Engine) -> Result<()> {
    let folder = outside(engine, "outside-of-copies")?;
    let id = engine.run_detached(&["--name", "esc-copies"], &["sleep", "3600"])?;
    let target = folder.display().to_string();
    let pid = engine.ok(&["inspect", "-f", "{{.State.Pid}}", &id])?;
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    std::fs::create_dir(root.join("real"))?;
    std::fs::write(root.join("real/file"), "inside")?;
    std::os::unix::fs::symlink(&folder, root.join("link"))?;
    let swapping = Swapping::start(root.join("real"), root.join("link"));
    std::fs::write(engine.path("planted"), "planted")?;
    let planted = engine.path("planted").display().to_string();
    for turn in 0..40 {
        let read = engine.docker(&["cp", &format!("{id}:/real/file"), "-"])?;
        ensure!(!read.stdout.contains("of the host"), "turn {turn}: a file of the host was read");
        // Whether it finds a directory there is chance.
        let _ = engine.docker(&["cp", &planted, &format!("{id}:/real/planted")])?;
        let _ = engine.docker(&["cp", &planted, &format!("{id}:/real/file")])?;
        untouched(&folder).with_context(|| format!("turn {turn}"))?;
    }
    ensure!(swapping.count.load(Ordering::Relaxed) > 100, "nothing was swapped");
    drop(swapping);
    // The same of a container that does not run, with links that climb.
    std::os::unix::fs::symlink(format!("../../../../../../../..{target}"), root.join("climbing"))?;
    engine.ok(&["kill", &id])?;
    for path in ["/link/file", "/climbing/file", "/real/../climbing/file"] {
        let read = engine.docker(&["cp", &format!("{id}:{path}"), "-"])?;
        ensure!(!read.stdout.contains("of the host"), "{path}");
        let _ = engine.docker(&["cp", &planted, &format!("{id}:{path}")])?;
    }
    untouched(&folder)?;
    engine.ok(&["rm", "-f", &id]).map(drop)
}

/// One request as it is given; the status of the answer and its body.
fn raw(engine: &Engine, request: &str) -> Result<(String, String)> {
    let mut stream = UnixStream::connect(engine.path("run/docker.sock"))?;
    // What is refused at its head is not read to its end.
    let _ = stream.write_all(request.as_bytes());
    let mut bytes = Vec::new();
    // A connection that is reset after the answer was read has answered.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).unwrap_or_default().to_owned();
    Ok((status, text))
}

/// There is no plugin that is asked whether a request may be; who may is decided by the socket and its mode before any
/// byte is read. What remains is that the checks see the very body that is acted on, in whatever form it comes.
fn bodies(engine: &Engine) -> Result<()> {
    let head =
        "POST /v1.47/containers/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\n";
    let refused = r#"{"Image":"of/nobody"}"#;
    let sized = raw(engine, &format!("{head}Content-Length: {}\r\n\r\n{refused}", refused.len()))?;
    let pieces: String =
        refused.as_bytes().chunks(7).map(|c| format!("{:x}\r\n{}\r\n", c.len(), String::from_utf8_lossy(c))).collect();
    let chunked = raw(engine, &format!("{head}Transfer-Encoding: chunked\r\n\r\n{pieces}0\r\n\r\n"))?;
    ensure!(sized.0 == "404" && sized.0 == chunked.0, "{sized:?}\n{chunked:?}");
    let empty = raw(engine, &format!("{head}Content-Length: 0\r\n\r\n"))?;
    let nothing = raw(engine, &format!("{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"))?;
    ensure!(empty.0.starts_with('4') && empty.0 == nothing.0, "{empty:?}\n{nothing:?}");
    // Two lengths, and a length beside chunks, are how one request is passed off as another.
    for framing in ["Content-Length: 2\r\nContent-Length: 5\r\n", "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"]
    {
        let answer =
            raw(engine, &format!("{head}{framing}\r\n{{}}\r\n0\r\n\r\nGET /v1.47/info HTTP/1.1\r\nHost: d\r\n\r\n"))?;
        ensure!(!answer.1.contains("DockerRootDir"), "{answer:?}");
    }
    // A body is bounded in either form.
    let large = " ".repeat(5 << 20);
    let sized = raw(engine, &format!("{head}Content-Length: {}\r\n\r\n{large}", large.len()))?;
    let chunked =
        raw(engine, &format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{large}\r\n0\r\n\r\n", large.len()))?;
    ensure!(!sized.0.starts_with('2') && !chunked.0.starts_with('2'), "{} {}", sized.0, chunked.0);
    engine.ok(&["version"]).map(drop)
}

/// Builds a Dockerfile without a context; what it said, whether it succeeded or not.
fn build(engine: &Engine, dockerfile: &str, tag: &str) -> Result<(bool, String)> {
    let file = engine.path(&format!("{tag}.Dockerfile"));
    std::fs::write(&file, dockerfile)?;
    let mut command = engine.command("sh");
    command.args(["-c", &format!("docker build --force-rm -t esc/{tag} - < {} 2>&1", file.display())]);
    let output = pintle_e2e::run_command(command, "")?;
    Ok((output.status.success(), output.stdout))
}

fn build_steps(engine: &Engine) -> Result<()> {
    // What any container may, and no more: no mounts, no devices, the masked files of /proc.
    let step = "RUN grep CapEff /proc/self/status; mkdir /m; mount -t tmpfs none /m && echo MOUNTED; \
                cat /proc/kcore > /dev/null && echo KCORE; echo x > /proc/sysrq-trigger && echo SYSRQ; \
                dd if=/dev/mem count=1 && echo MEMORY; true";
    let (done, told) = build(engine, &format!("FROM {BUSYBOX}\n{step}\n"), "confined")?;
    ensure!(done && told.contains("CapEff:\t00000000a80425fb"), "{told}");
    let output = told.split("Running in").nth(1).context("the step ran")?;
    for word in ["MOUNTED", "SYSRQ", "MEMORY"] {
        ensure!(!output.lines().any(|line| line == word), "{word}: {told}");
    }
    // Mounts and privileges in a RUN need what this builder refuses.
    for flag in [
        "--mount=type=cache,target=/etc,source=../../..",
        "--mount=type=bind,from=scratch,source=/,target=/m",
        "--security=insecure",
        "--network=host",
    ] {
        let (done, told) = build(engine, &format!("FROM {BUSYBOX}\nRUN {flag} true\n"), "flags")?;
        ensure!(!done, "RUN {flag} was done: {told}");
    }
    engine.ok(&["rmi", "-f", "esc/confined"]).map(drop)
}

/// Links in the context and in the image lead nowhere but inside.
fn build_links(engine: &Engine) -> Result<()> {
    let folder = outside(engine, "outside-of-builds")?;
    let target = folder.display().to_string();
    let context = engine.path("esc-context");
    std::fs::create_dir_all(&context)?;
    std::fs::write(context.join("planted"), "planted")?;
    std::os::unix::fs::symlink(&folder, context.join("link"))?;
    std::os::unix::fs::symlink(format!("../../../../../../..{target}/file"), context.join("climbing"))?;
    let at = context.display().to_string();
    let try_it = |steps: &str| -> Result<(bool, String)> {
        std::fs::write(context.join("Dockerfile"), format!("FROM {BUSYBOX}\n{steps}\n"))?;
        let mut command = engine.command("sh");
        command.args(["-c", &format!("docker build --force-rm -t esc/links {at} 2>&1")]);
        let output = pintle_e2e::run_command(command, "")?;
        Ok((output.status.success(), output.stdout))
    };
    for source in ["link/file", "../outside-of-builds/file", "/../../../../../etc/shadow", &format!("{target}/file")] {
        let (_, told) = try_it(&format!("COPY {source} /got\nRUN cat /got"))?;
        ensure!(!told.contains("of the host"), "COPY {source}: {told}");
    }
    let (_, told) = try_it("COPY climbing /got\nRUN cat /got")?;
    ensure!(!told.contains("of the host"), "{told}");
    // The image's own links: where a step writes through them, it writes into the image.
    for steps in [
        format!("RUN busybox ln -s {target} /way\nCOPY planted /way/planted"),
        format!("RUN busybox ln -s ../../../../../../..{target} /way\nADD planted /way/file"),
        format!("RUN busybox ln -s {target} /way\nWORKDIR /way/deeper\nCOPY planted ."),
        format!("RUN busybox ln -s {target}/file /way\nCOPY planted /way"),
    ] {
        let (_, told) = try_it(&steps)?;
        untouched(&folder).with_context(|| format!("{steps}\n{told}"))?;
        ensure!(!told.contains("not found"), "the link is not made: {told}");
    }
    let (done, told) = try_it(&format!(
        "RUN busybox ln -s {target} /way\nFROM {BUSYBOX}\nCOPY --from=0 /way/file /got\nRUN cat /got"
    ))?;
    ensure!(!done && !told.contains("of the host"), "{told}");
    // Not pruned: others that build beside this one have images without a name for a moment.
    engine.ok(&["rmi", "-f", "esc/links"]).map(drop)
}

/// An image that somebody made with the same command on the same parent is no step's result.
fn cache(engine: &Engine) -> Result<()> {
    let step = "echo $WHAT > /made";
    engine.ok(&["run", "--name", "esc-evil", "-e", "WHAT=evil", BUSYBOX, "/bin/sh", "-c", step])?;
    engine.ok(&["commit", "-c", "ENV WHAT=", "-c", "CMD [\"sh\"]", "esc-evil", "esc/evil"])?;
    engine.ok(&["rm", "esc-evil"])?;
    // Carried in by an archive, it is as foreign.
    let archive = engine.path("evil.tar").display().to_string();
    engine.shell(&format!("docker save -o {archive} esc/evil && docker rmi esc/evil && docker load -i {archive}"))?;
    let (done, told) = build(engine, &format!("FROM {BUSYBOX}\nRUN {step}\n"), "good")?;
    ensure!(done && !told.contains("Using cache"), "{told}");
    ensure!(engine.ok(&["run", "--rm", "esc/good", "cat", "/made"])?.is_empty());
    // What a step would leave beside its files is part of its key: the health check, what is done on builds.
    let health = |seconds: u32| {
        format!(
            "FROM {BUSYBOX}\nHEALTHCHECK --start-interval={seconds}s CMD true\nONBUILD RUN true {seconds}\nRUN {step}\n"
        )
    };
    for seconds in [1, 2] {
        let (done, told) = build(engine, &health(seconds), "health")?;
        ensure!(done && !told.contains("Using cache"), "{seconds}: {told}");
        let kept = engine.ok(&["image", "inspect", "-f", "{{.Config.OnBuild}}", "esc/health"])?;
        ensure!(kept == format!("[RUN true {seconds}]"), "{kept}");
    }
    let (_, told) = build(engine, &health(2), "health")?;
    ensure!(told.matches("Using cache").count() == 3, "{told}");
    engine.ok(&["rmi", "-f", "esc/evil", "esc/good", "esc/health"]).map(drop)
}
