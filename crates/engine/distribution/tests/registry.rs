//! Pulls from and pushes to a real registry (`docker-registry`), which each test starts and ends. Needs root: layers
//! have owners.

#[path = "registry/secured.rs"]
mod secured;

use pintle_distribution::{Credentials, Options, Progress, Registry, Step, pull, push};
use pintle_image::{ImageStore, Import, Reference};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

/// `docker-registry` on a port of the loopback.
struct Server {
    process: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start(auth: &str) -> Self {
        Self::start_with("", auth)
    }

    /// With further settings of `http` and of the whole.
    fn start_with(http: &str, auth: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let root = directory.path().display();
        if auth.contains("htpasswd") {
            fs::write(directory.path().join("htpasswd"), password_file()).unwrap();
        }
        let auth = auth.replace("ROOT", &root.to_string());
        let settings = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {root}/data}}}}\n\
             http: {{addr: '127.0.0.1:{port}'{http}}}\n{auth}"
        );
        let file = directory.path().join("config.yml");
        fs::write(&file, settings).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is installed: scripts/prepare.sh test");
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("listening on"));
        assert!(ready, "the registry did not start");
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { process, port, _directory: directory }
    }

    fn name(&self, rest: &str) -> Reference {
        format!("localhost:{}/{rest}", self.port).parse().unwrap()
    }
}

fn password_file() -> Vec<u8> {
    let made = Command::new("htpasswd").args(["-Bbn", "me", "secret"]).output();
    made.expect("htpasswd is installed: scripts/prepare.sh test").stdout
}

fn store() -> (tempfile::TempDir, Arc<ImageStore>) {
    let directory = tempfile::tempdir().unwrap();
    let store = ImageStore::open(directory.path()).unwrap();
    (directory, Arc::new(store))
}

/// A root file system with one file whose content does not compress.
fn archive(bytes: usize) -> Vec<u8> {
    let mut content = Vec::with_capacity(bytes + 32);
    let mut state = 1_u64;
    while content.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        content.extend_from_slice(&state.to_be_bytes());
    }
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    builder.append_data(&mut header, "data", &content[..]).unwrap();
    builder.into_inner().unwrap()
}

fn import(store: &ImageStore, tag: &Reference, bytes: usize) -> String {
    let import = Import { tag: Some(tag.clone()), created: "2026-01-01T00:00:00Z", ..Import::default() };
    store.import(&archive(bytes)[..], &import).unwrap().id
}

fn nobody() -> Credentials {
    Credentials::default()
}

fn me(password: &str) -> Credentials {
    Credentials { username: "me".into(), password: password.into(), ..Credentials::default() }
}

fn silent(_: Progress) {}

/// Fills a registry with one image; returns its id and the digest of its manifest.
async fn filled(server: &Server, name: &str, bytes: usize) -> (String, String) {
    let (_directory, store) = store();
    let reference = server.name(name);
    let id = import(&store, &reference, bytes);
    let pushed = push(&store, &reference, nobody(), &Options::default(), &silent).await.unwrap();
    (id, pushed.digest)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_is_pulled_again() {
    let server = Server::start("");
    let (id, digest) = filled(&server, "team/app:1", 100_000).await;
    let (_directory, store) = store();
    let told = Mutex::new(Vec::new());
    let tell = |progress: Progress| {
        if let Progress::Layer { step, .. } = progress {
            let mut told = told.lock().unwrap();
            let again = matches!((&step, told.last()), (Step::Downloading(..), Some(Step::Downloading(..))));
            if !again {
                told.push(step);
            }
        }
    };
    let reference = server.name("team/app:1");
    let pulled = pull(&store, &reference, nobody(), &Options::default(), &tell).await.unwrap();
    assert_eq!((&pulled.image.id, &pulled.digest, pulled.up_to_date), (&id, &digest, false));
    assert_eq!(pulled.image.origins, [format!("localhost:{}/team/app@{digest}", server.port)]);
    let steps = told.lock().unwrap().clone();
    let layer = pulled.image.layer_records()[0].clone();
    assert_ne!(layer.digest, layer.diff_id, "layers travel compressed");
    assert!(
        matches!(
            &steps[..],
            [
                Step::PullingLayer,
                Step::Downloading(..),
                Step::Verifying,
                Step::DownloadComplete,
                Step::Extracting(..),
                Step::PullComplete
            ]
        ),
        "{steps:?}"
    );
    let again = pull(&store, &reference, nobody(), &Options::default(), &tell).await.unwrap();
    assert!(again.up_to_date);
    let by_digest: Reference = format!("localhost:{}/team/app@{digest}", server.port).parse().unwrap();
    let (_other, other) = self::store();
    let pulled = pull(&other, &by_digest, nobody(), &Options::default(), &silent).await.unwrap();
    assert_eq!((pulled.image.id.as_str(), pulled.image.tags.len()), (id.as_str(), 0));
    assert!(other.resolve(&by_digest.to_string()).is_some());
    // Under another name of the same registry the layers are taken over there.
    let elsewhere = server.name("other/app:2");
    store.tag(&id, &elsewhere.to_string()).unwrap();
    let mounted = Mutex::new(false);
    let tell = |progress: Progress| {
        if let Progress::Layer { step: Step::Mounted(from), .. } = progress {
            *mounted.lock().unwrap() = from == "team/app";
        }
    };
    push(&store, &elsewhere, nobody(), &Options::default(), &tell).await.unwrap();
    assert!(*mounted.lock().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_worded_as_docker_words_them() {
    let server = Server::start("");
    let (_directory, store) = store();
    let missing = server.name("x");
    let error = pull(&store, &missing, nobody(), &Options::default(), &silent).await.unwrap_err();
    let expected = format!("manifest for {missing} not found: manifest unknown: manifest unknown");
    assert_eq!(error.to_string(), expected);
    let error = push(&store, &missing, nobody(), &Options::default(), &silent).await.unwrap_err();
    let expected = format!("An image does not exist locally with the tag: localhost:{}/x", server.port);
    assert_eq!(error.to_string(), expected);
    drop(server);
    let error = pull(&store, &missing, nobody(), &Options::default(), &silent).await.unwrap_err().to_string();
    assert!(error.starts_with("Get \"http://localhost:") && error.ends_with("connect: connection refused"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_shown_and_missed() {
    let server = Server::start("auth: {htpasswd: {realm: here, path: ROOT/htpasswd}}\n");
    let (_directory, store) = store();
    let reference = server.name("app:1");
    let id = import(&store, &reference, 1000);
    let options = Options::default();
    let pushed = push(&store, &reference, me("secret"), &options, &silent).await.unwrap();
    assert_eq!(pull(&store, &reference, me("secret"), &options, &silent).await.unwrap().image.id, id);
    let base = format!("http://localhost:{}/v2", server.port);
    let error = pull(&store, &reference, nobody(), &options, &silent).await.unwrap_err();
    assert_eq!(error.to_string(), format!("Head \"{base}/app/manifests/1\": no basic auth credentials"));
    let error = pull(&store, &reference, me("wrong"), &options, &silent).await.unwrap_err();
    assert_eq!(error.to_string(), "unauthorized: authentication required");
    let host = format!("localhost:{}", server.port);
    Registry::login(&host, me("secret"), &options).await.unwrap();
    let error = Registry::login(&host, me("wrong"), &options).await.unwrap_err();
    assert_eq!(error.to_string(), format!("login attempt to {base}/ failed with status: 401 Unauthorized"));
    assert!(!pushed.digest.is_empty());
}

/// Passes connections on to a registry, and cuts the first `cuts` answers after `bytes` bytes.
async fn cutting_proxy(target: u16, cuts: usize, bytes: u64) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let left = Arc::new(std::sync::atomic::AtomicUsize::new(cuts));
        while let Ok((client, _)) = listener.accept().await {
            let left = Arc::clone(&left);
            tokio::spawn(async move {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
                let ((mut from_client, mut to_client), (from_server, mut to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let mut head = tokio::io::AsyncReadExt::take(from_server, bytes);
                let sent = tokio::io::copy(&mut head, &mut to_client).await.unwrap_or(0);
                let cut = sent == bytes
                    && left
                        .fetch_update(std::sync::atomic::Ordering::SeqCst, std::sync::atomic::Ordering::SeqCst, |n| {
                            n.checked_sub(1)
                        })
                        .is_ok();
                if !cut {
                    // The other side may have gone.
                    let _ = tokio::io::copy(&mut head.into_inner(), &mut to_client).await;
                }
                let _ = to_client.shutdown().await;
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_pull_goes_on_or_leaves_nothing() {
    let server = Server::start("");
    let (id, _) = filled(&server, "app:1", 400_000).await;
    let port = cutting_proxy(server.port, 1, 150_000).await;
    let reference: Reference = format!("localhost:{port}/app:1").parse().unwrap();
    let (_directory, store) = store();
    let retried = Mutex::new(0);
    let tell = |progress: Progress| {
        if matches!(progress, Progress::Layer { step: Step::Retrying(_), .. }) {
            *retried.lock().unwrap() += 1;
        }
    };
    assert_eq!(pull(&store, &reference, nobody(), &Options::default(), &tell).await.unwrap().image.id, id);
    assert_eq!(*retried.lock().unwrap(), 1);
    // A pull that is given up leaves nothing when its lease has gone.
    let (directory, store) = self::store();
    let port = cutting_proxy(server.port, usize::MAX, 150_000).await;
    let reference: Reference = format!("localhost:{port}/app:1").parse().unwrap();
    let (gone, given_up) = tokio::sync::mpsc::unbounded_channel();
    let tell = move |progress: Progress| {
        if matches!(progress, Progress::Layer { step: Step::Retrying(_), .. }) {
            let _ = gone.send(());
        }
    };
    let mut given_up = given_up;
    let options = Options::default();
    tokio::select! {
        done = pull(&store, &reference, nobody(), &options, &tell) => panic!("{done:?}"),
        _ = given_up.recv() => {}
    }
    assert!(store.list().is_empty());
    store.sweep().unwrap();
    for kind in ["blobs/sha256", "layers"] {
        assert_eq!(fs::read_dir(directory.path().join(kind)).unwrap().count(), 0, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_of_the_same_image_share_their_work() {
    let server = Server::start("");
    let (id, _) = filled(&server, "app:1", 300_000).await;
    let (_directory, store) = store();
    let (options, reference) = (Options::default(), server.name("app:1"));
    let fetched = Mutex::new(0);
    let tell = |progress: Progress| {
        if matches!(progress, Progress::Layer { step: Step::Verifying, .. }) {
            *fetched.lock().unwrap() += 1;
        }
    };
    let all = (0..4).map(|_| pull(&store, &reference, nobody(), &options, &tell));
    for pulled in futures::future::join_all(all).await {
        assert_eq!(pulled.unwrap().image.id, id);
    }
    assert_eq!(*fetched.lock().unwrap(), 1);
}

/// Images are pulled, used and removed while others prune without end: what is there is whole.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_pulled_or_used_is_never_collected() {
    let server = Server::start("");
    let mut filled_with = Vec::new();
    for (name, bytes) in [("one:1", 40_000), ("two:1", 60_000), ("three:1", 80_000)] {
        filled_with.push((server.name(name), filled(&server, name, bytes).await.0, bytes));
    }
    let (directory, store) = store();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let collector = {
        let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
        std::thread::spawn(move || {
            let all = pintle_image::PruneFilter { all: true, ..Default::default() };
            let mut removed = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                removed += store.prune(&all, &[]).unwrap().removed.len();
            }
            removed
        })
    };
    let (options, store_of) = (Options::default(), &store);
    let rounds = filled_with.iter().enumerate().map(|(turn, (reference, id, bytes))| {
        let options = options.clone();
        async move {
            for round in 0..15 {
                let pulled = match pull(store_of, reference, nobody(), &options, &silent).await {
                    Ok(pulled) => pulled.image.id,
                    // Listed, and pruned before the answer was made.
                    Err(error) if error.to_string().contains("no such image") => continue,
                    Err(error) => panic!("{error}"),
                };
                assert_eq!(&pulled, id);
                let key = format!("used-{turn}-{round}");
                // It may be pruned by now; but if a container stands on it, all of it stays.
                if let Ok(mounts) = store_of.prepare_snapshot(&key, id) {
                    tokio::task::yield_now().await;
                    let size = |lower: &std::path::PathBuf| fs::metadata(lower.join("data")).unwrap().len() as usize;
                    assert!(mounts.lower.iter().all(|lower| size(lower) >= *bytes));
                }
                store_of.remove_snapshot(&key).unwrap();
            }
        }
    });
    futures::future::join_all(rounds).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(collector.join().unwrap() > 0, "nothing was ever collected");
    store.prune(&pintle_image::PruneFilter { all: true, ..Default::default() }, &[]).unwrap();
    for kind in ["blobs/sha256", "layers", "ingest"] {
        assert_eq!(fs::read_dir(directory.path().join(kind)).unwrap().count(), 0, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_come_first_and_are_done_without() {
    let mirror = Server::start("");
    let (id, _) = filled(&mirror, "library/app:1", 1000).await;
    let (_directory, store) = store();
    let dead = "http://localhost:1".to_owned();
    let mirrors = vec![dead, format!("http://localhost:{}", mirror.port)];
    let options = Options { mirrors, ..Options::default() };
    let pulled = pull(&store, &"app:1".parse().unwrap(), nobody(), &options, &silent).await.unwrap();
    assert_eq!((pulled.image.id, pulled.image.tags), (id, vec!["docker.io/library/app:1".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_reads_what_is_pushed_and_saved_and_the_reverse() {
    let server = Server::start("");
    let (id, digest) = filled(&server, "app:1", 5000).await;
    let skopeo = |arguments: &[&str]| {
        let done =
            Command::new("skopeo").args(arguments).output().expect("skopeo is installed: scripts/prepare.sh test");
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    let remote = format!("docker://{}", server.name("app:1"));
    let told = skopeo(&["inspect", "--tls-verify=false", &remote]);
    assert!(told.contains(&digest), "{told}");
    let directory = tempfile::tempdir().unwrap();
    let (_store, store) = store();
    for (kind, file) in [("docker-archive", "d.tar"), ("oci-archive", "o.tar")] {
        let file = directory.path().join(file);
        let target = format!("{kind}:{}:example.test/app:{kind}", file.display());
        skopeo(&["copy", "--src-tls-verify=false", &remote, &target]);
        let loaded = store.load(fs::File::open(&file).unwrap()).unwrap();
        assert_eq!(loaded[0].tags, [format!("example.test/app:{kind}")]);
    }
    // As zstd, in a list of platforms, by the registry.
    let zstd = format!("docker://{}", server.name("app:zstd"));
    let more =
        ["--dest-compress-format", "zstd", "--format", "oci", "--src-tls-verify=false", "--dest-tls-verify=false"];
    skopeo(&[&["copy", "--multi-arch", "all"], &more[..], &[&remote, &zstd]].concat());
    let (_other, other) = self::store();
    pull(&other, &server.name("app:zstd"), nobody(), &Options::default(), &silent).await.unwrap();
    let saved = directory.path().join("saved.tar");
    store.save(&[id], fs::File::create(&saved).unwrap()).unwrap();
    store.save(&["example.test/app:oci-archive".into()], fs::File::create(&saved).unwrap()).unwrap();
    for kind in ["docker-archive", "oci-archive"] {
        let told = skopeo(&["inspect", &format!("{kind}:{}", saved.display())]);
        assert!(told.contains("\"Layers\""), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_gives_the_image_of_this_platform() {
    let server = Server::start("");
    let (own, own_digest) = filled(&server, "app:own", 1000).await;
    let (_, other_digest) = filled(&server, "app:other", 2000).await;
    let manifest = |digest: &str, architecture: &str| {
        let media = "application/vnd.oci.image.manifest.v1+json";
        let platform = format!("{{\"os\":\"linux\",\"architecture\":\"{architecture}\"}}");
        format!("{{\"mediaType\":\"{media}\",\"digest\":\"{digest}\",\"size\":1,\"platform\":{platform}}}")
    };
    let here = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let entries = [manifest(&other_digest, "s390x"), manifest(&own_digest, here)].join(",");
    let media = "application/vnd.oci.image.index.v1+json";
    let list = format!("{{\"schemaVersion\":2,\"mediaType\":\"{media}\",\"manifests\":[{entries}]}}");
    let mut connection = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    let head = format!(
        "PUT /v2/app/manifests/list HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{list}",
        list.len()
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut connection, &mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let (_directory, store) = store();
    let pulled = pull(&store, &server.name("app:list"), nobody(), &Options::default(), &silent).await.unwrap();
    assert_eq!(pulled.image.id, own);
    assert_ne!(pulled.digest, own_digest);
    let platform = ("linux".to_owned(), "riscv64".to_owned(), String::new());
    let options = Options { platform, ..Options::default() };
    let error = pull(&store, &server.name("app:list"), nobody(), &options, &silent).await.unwrap_err();
    assert_eq!(error.to_string(), "no matching manifest for linux/riscv64 in the manifest list entries");
}
