//! Measures the container engine: starts one at a time, 500 containers at once, 1,000 that come and go, pulls and builds.
//!
//! Requests go to the engine's socket without a client program between, unless a row says otherwise. Words on the
//! command line choose parts: `start`, `oci`, `crowd`, `churn`, `pull`, `build`; without any all are measured.

use anyhow::{Context, Result, ensure};
use pintle_e2e::figures::{milliseconds, quantile, ratio, tell};
use pintle_e2e::{BUSYBOX, Engine, Held, Spawned, Subject, run_command};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

const STARTS: usize = 100;
const CROWD: usize = 500;
/// How many at each end of the crowd are compared.
const END: usize = 50;
const CHURN: usize = 1000;
const PULLS: usize = 10;
/// Puts `$images` images of three layers each into the registry; no two have a layer in common. Prints the sizes of one.
const FAR_IMAGES: &str = r#"
cd "$root"
find /usr/lib /usr/share -type f -size -1024k -size +0 2>/dev/null | sort | head -9000 > all
split -n l/3 all part-
mkdir -p oci/blobs/sha256
keep() { digest=$(sha256sum < "$1" | cut -d' ' -f1); size=$(stat -c %s "$1"); mv "$1" "oci/blobs/sha256/$digest"; }
descriptor() { printf '{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%s}' "$1" "$digest" "$size"; }
echo '{"imageLayoutVersion":"1.0.0"}' > oci/oci-layout
for image in $(seq "$images"); do
  echo "$image" > stamp
  layers= diffs= packed=0 unpacked=0
  for part in aa ab ac; do
    tar -c stamp --files-from part-$part --file layer.tar 2>/dev/null
    diffs="$diffs${diffs:+,}\"sha256:$(sha256sum < layer.tar | cut -d' ' -f1)\""
    unpacked=$((unpacked + $(stat -c %s layer.tar)))
    gzip -1 layer.tar
    keep layer.tar.gz
    packed=$((packed + size))
    layers="$layers${layers:+,}$(descriptor layer.v1.tar+gzip)"
  done
  printf '{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[%s]}}' "$diffs" > config
  keep config
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}' \
    "$(descriptor config.v1+json)" "$layers" > manifest
  keep manifest
  printf '{"schemaVersion":2,"manifests":[%s]}' "$(descriptor manifest.v1+json)" > oci/index.json
  skopeo --insecure-policy copy --quiet --dest-tls-verify=false oci:oci "docker://$far:$image"
  rm -r oci/blobs/sha256 && mkdir oci/blobs/sha256
done
echo "$((unpacked / 1000000)) MB $((packed / 1000000)) MB"
"#;
/// Images that only the registry has, tagged from 1 on.
const FAR: &str = "127.0.0.1:5000/bench/far";

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let chosen = |part: &str| words.is_empty() || words.iter().any(|w| w == part);
    let engine = Engine::start()?;
    let parts: [(&str, fn(&Engine) -> Result<()>); 6] =
        [("start", starts), ("oci", runtimes), ("crowd", crowd), ("churn", churn), ("pull", pulls), ("build", builds)];
    for (name, part) in parts {
        if chosen(name) {
            part(&engine).with_context(|| format!("the part {name}"))?;
        }
    }
    engine.finish()
}

fn timed(mut work: impl FnMut() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

/// Several figures of the same work, after one that does not count.
fn figures(count: usize, mut work: impl FnMut() -> Result<()>) -> Result<Vec<Duration>> {
    work()?;
    (0..count).map(|_| timed(&mut work)).collect()
}

/// One request on a connection of its own; the body of the answer, which must be a success.
fn ask(engine: &Engine, method: &str, path: &str, body: &Value) -> Result<String> {
    let mut stream = UnixStream::connect(engine.path("run/docker.sock"))?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    write!(
        stream,
        "{method} /v1.47{path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a head")?;
    ensure!(head.starts_with("HTTP/1.1 2"), "{method} {path}: {answer}");
    Ok(body.to_owned())
}

fn create(engine: &Engine, words: &[&str], network: &str) -> Result<String> {
    let body = json!({ "Image": BUSYBOX, "Cmd": words, "HostConfig": { "NetworkMode": network } });
    let answer = ask(engine, "POST", "/containers/create", &body)?;
    let answer: Value = serde_json::from_str(answer.trim())?;
    Ok(answer["Id"].as_str().context("an id")?.to_owned())
}

fn start(engine: &Engine, id: &str) -> Result<()> {
    ask(engine, "POST", &format!("/containers/{id}/start"), &Value::Null).map(drop)
}

fn remove(engine: &Engine, id: &str) -> Result<()> {
    ask(engine, "DELETE", &format!("/containers/{id}?force=1&v=1"), &Value::Null).map(drop)
}

/// From the request to make it until the answer that it runs.
fn begin(engine: &Engine, network: &str) -> Result<(String, Duration)> {
    let before = Instant::now();
    let id = create(engine, &["sleep", "3600"], network)?;
    start(engine, &id)?;
    Ok((id, before.elapsed()))
}

/// Made, started, waited for and removed.
fn run_true(engine: &Engine, network: &str) -> Result<()> {
    let id = create(engine, &["true"], network)?;
    start(engine, &id)?;
    ask(engine, "POST", &format!("/containers/{id}/wait"), &Value::Null)?;
    remove(engine, &id)
}

fn starts(engine: &Engine) -> Result<()> {
    for network in ["bridge", "none"] {
        let mut all = Vec::new();
        for turn in 0..=STARTS {
            let (id, took) = begin(engine, network)?;
            remove(engine, &id)?;
            // The first is the warm-up.
            if turn > 0 {
                all.push(took);
            }
        }
        tell(&format!("create and start, network {network}, p50"), milliseconds(quantile(&all, 0.5)));
        tell(&format!("create and start, network {network}, p99"), milliseconds(quantile(&all, 0.99)));
    }
    let ours = quantile(&figures(STARTS, || run_true(engine, "none"))?, 0.5);
    tell("true: create, start, wait and remove, network none, p50", milliseconds(ours));
    let floor = quantile(&figures(STARTS / 5, || engine.ok(&["--version"]).map(drop))?, 0.5);
    let whole = quantile(&figures(STARTS / 5, || engine.ok(&["run", "--rm", BUSYBOX, "true"]).map(drop))?, 0.5);
    tell("docker run --rm busybox true, bridge, p50", milliseconds(whole));
    tell("docker --version (part of the row above), p50", milliseconds(floor));
    Ok(())
}

/// Whole runs of the same bundle in turns. Each command goes through `nsenter` into mounts where one version of cgroups
/// is: crun refuses machines that have both.
fn runtimes(engine: &Engine) -> Result<()> {
    let bundle = bundle(engine)?;
    let mut holder = engine.command("unshare");
    holder.args(["--mount", "sh", "-c", "umount /sys/fs/cgroup/unified; echo ready; exec sleep 3600"]);
    let holder = engine.start_program(holder)?;
    holder.expect("ready", Duration::from_secs(10))?;
    let mounts = format!("--mount=/proc/{}/ns/mnt", holder.id());
    let own = engine.program()?.display().to_string();
    let contestants: [(&str, &[&str]); 3] =
        [("crun", &["crun", "--cgroup-manager=cgroupfs"]), ("pintle oci", &[&own, "oci"]), ("runc", &["runc"])];
    let mut took = [const { Vec::new() }; 3];
    for turn in 0..=STARTS {
        for (all, (_, words)) in took.iter_mut().zip(contestants) {
            let one = timed(|| {
                let mut command = engine.command("nsenter");
                command.arg(&mounts).args(words).args(["run", "--bundle", &bundle, &engine.host.name]);
                run_command(command, "")?.ok().map(drop)
            })?;
            // The first is the warm-up.
            if turn > 0 {
                all.push(one);
            }
        }
    }
    let of_crun = quantile(&took[0], 0.5);
    for (all, (name, _)) in took.iter().zip(contestants) {
        let (half, most) = (quantile(all, 0.5), quantile(all, 0.99));
        let shown = format!("{} {}, to crun {:.2}", milliseconds(half), milliseconds(most), ratio(half, of_crun));
        tell(&format!("{name} run of true, nsenter included, p50 and p99"), shown);
    }
    Ok(())
}

/// A bundle for other runtimes: the files of the same image, and the settings that runc proposes.
fn bundle(engine: &Engine) -> Result<String> {
    let folder = engine.path("bundle");
    std::fs::create_dir_all(folder.join("rootfs"))?;
    let shown = folder.display().to_string();
    engine.shell(&format!(
        "docker create --name bundle {BUSYBOX} true && docker export bundle | tar -x -C {shown}/rootfs && docker rm bundle
         cd {shown} && runc spec"
    ))?;
    let file = folder.join("config.json");
    let mut spec: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    // The newest version that all of them know.
    spec["ociVersion"] = json!("1.0.2");
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["true"]);
    spec["linux"]["cgroupsPath"] = json!(format!("/{}-peer", engine.host.name));
    std::fs::write(file, spec.to_string())?;
    Ok(shown)
}

/// Proportional set size in KiB.
fn pss(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find(|l| l.starts_with("Pss:")).context("Pss")?;
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).context("a number of KiB")
}

fn crowd(engine: &Engine) -> Result<()> {
    let (warm, _) = begin(engine, "bridge")?;
    remove(engine, &warm)?;
    let pid = engine.pid()?;
    let before = pss(pid)?;
    let (mut ids, mut took) = (Vec::new(), Vec::new());
    for _ in 0..CROWD {
        let (id, one) = begin(engine, "bridge")?;
        ids.push(id);
        took.push(one);
    }
    let (first, last) = (&took[..END], &took[CROWD - END..]);
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let (early, late) = (quantile(first, share), quantile(last, share));
        tell(
            &format!("start of {CROWD} that stay, bridge, {name} of the first and last {END}"),
            format!("{} {}, last to first {:.2}", milliseconds(early), milliseconds(late), ratio(late, early)),
        );
    }
    let shims = engine.shims()?;
    let of_shims = shims.iter().map(|pid| pss(*pid)).sum::<Result<u64>>()?;
    let grown = pss(pid)?.saturating_sub(before);
    let each = |total: u64| format!("{:.0} KiB", total as f64 / CROWD as f64);
    tell("memory per container: shim (PSS)", each(of_shims));
    tell("memory per container: what the engine grew by (PSS)", each(grown));
    tell(&format!("engine before and with {CROWD} containers (PSS)"), format!("{before} KiB {} KiB", before + grown));
    let listing = quantile(&figures(10, || ask(engine, "GET", "/containers/json", &Value::Null).map(drop))?, 0.5);
    tell(&format!("list of {CROWD}, p50"), milliseconds(listing));
    let removals = ids.iter().map(|id| timed(|| remove(engine, id))).collect::<Result<Vec<_>>>()?;
    let (early, late) = (quantile(&removals[..END], 0.5), quantile(&removals[CROWD - END..], 0.5));
    tell(
        &format!("removal by force, p50 of the first and last {END}"),
        format!("{} {}", milliseconds(early), milliseconds(late)),
    );
    Ok(())
}

fn held(engine: &Engine) -> Result<Held> {
    Held::of(&engine.host, engine.pid()?, &engine.path(""))
}

fn churn(engine: &Engine) -> Result<()> {
    for _ in 0..20 {
        run_true(engine, "bridge")?;
    }
    let (before, memory) = (held(engine)?, pss(engine.pid()?)?);
    let took = (0..CHURN).map(|_| timed(|| run_true(engine, "bridge"))).collect::<Result<Vec<_>>>()?;
    let (early, late) = (quantile(&took[..END], 0.5), quantile(&took[CHURN - END..], 0.5));
    tell(
        &format!("{CHURN} starts and removals, bridge, p50 of the first and last {END}"),
        format!("{} {}, last to first {:.2}", milliseconds(early), milliseconds(late), ratio(late, early)),
    );
    // What is taken away in the background may take a moment.
    let mut after = held(engine)?;
    let limit = Instant::now() + Duration::from_secs(20);
    while after != before && Instant::now() < limit {
        std::thread::park_timeout(Duration::from_millis(100));
        after = held(engine)?;
    }
    tell("held before", format!("{before:?}"));
    tell("held after", format!("{after:?}"));
    tell("engine before and after (PSS)", format!("{memory} KiB {} KiB", pss(engine.pid()?)?));
    Ok(())
}

/// Debian's registry with an image of three layers of this machine's own files.
fn registry(engine: &Engine) -> Result<Spawned> {
    let folder = engine.path("registry");
    std::fs::create_dir_all(&folder)?;
    let root = folder.display().to_string();
    let settings = format!(
        "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {root}/data}}}}\n\
         http: {{addr: '127.0.0.1:5000'}}\n"
    );
    std::fs::write(folder.join("config.yml"), settings)?;
    let mut command = engine.command("docker-registry");
    command.arg("serve").arg(folder.join("config.yml"));
    let registry = engine.start_program(command)?;
    registry.expect("listening on", Duration::from_secs(30))?;
    let images = PULLS + 1;
    let made = engine.shell(&format!("root={root} far={FAR} images={images}\n{FAR_IMAGES}"))?;
    tell("the image: bytes of files, bytes in the registry", made.trim());
    Ok(registry)
}

/// Pulls images that nobody has yet: a file system is slow to make files where others were just deleted.
fn pulls(engine: &Engine) -> Result<()> {
    let _registry = registry(engine)?;
    let mut tag = 0;
    let ours = quantile(
        &figures(PULLS, || {
            tag += 1;
            let path = format!("/images/create?fromImage={}&tag={tag}", FAR.replace('/', "%2F"));
            let told = ask(engine, "POST", &path, &Value::Null)?;
            ensure!(told.contains("Downloaded newer image"), "{told}");
            Ok(())
        })?,
        0.5,
    );
    tell("pull and unpack from a registry on the loopback, p50", milliseconds(ours));
    let place = engine.path("podman").display().to_string();
    // podman insists on the file that DOCKER_CONFIG names.
    let known = engine.path("docker-config");
    std::fs::create_dir_all(&known)?;
    std::fs::write(known.join("config.json"), "{}")?;
    let mut tag = 0;
    let theirs = figures(PULLS, || {
        tag += 1;
        let mut command: Command = engine.command("podman");
        command.args(["--root", &format!("{place}/root"), "--runroot", &format!("{place}/run")]);
        command.args(["--storage-driver", "overlay", "pull", "-q", "--tls-verify=false", &format!("{FAR}:{tag}")]);
        run_command(command, "")?.ok().map(drop)
    });
    engine
        .shell(&format!("podman --root {place}/root --runroot {place}/run --storage-driver overlay system reset -f"))?;
    let theirs = quantile(&theirs?, 0.5);
    tell("podman pull, p50", format!("{}, ours to theirs {:.2}", milliseconds(theirs), ratio(ours, theirs)));
    engine.shell("docker image prune -af").map(drop)
}

fn builds(engine: &Engine) -> Result<()> {
    let folder = engine.path("steps");
    std::fs::create_dir_all(&folder)?;
    let dockerfile = format!(
        "FROM {BUSYBOX}\nENV A=b\nCOPY Dockerfile /\nRUN echo one > /one\nRUN echo two > /two\nCMD [\"cat\", \"/one\"]\n"
    );
    std::fs::write(folder.join("Dockerfile"), dockerfile)?;
    let folder = folder.display().to_string();
    let build =
        |more: &[&str]| engine.ok(&[&["build", "-q", "-t", "bench/built"], more, &[&folder]].concat()).map(drop);
    let cold = quantile(&figures(PULLS, || build(&["--no-cache"]))?, 0.5);
    let cached = quantile(&figures(PULLS, || build(&[]))?, 0.5);
    let floor = quantile(&figures(PULLS, || engine.ok(&["--version"]).map(drop))?, 0.5);
    tell("docker build of 5 steps, two of them RUN, without the cache, p50", milliseconds(cold));
    tell("the same, cached, p50", milliseconds(cached));
    tell("docker --version (part of both), p50", milliseconds(floor));
    engine.ok(&["rmi", "-f", "bench/built"]).map(drop)
}
