//! The embedded store's file: torn and damaged ends, a disk without room, how much it grows and how often it waits.

use pintle_store::embedded::Options;
use pintle_store::{EmbeddedStore, KeyRange, Op, RangeRequest, Revision, Store, StoreError, Txn};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

async fn put(store: &EmbeddedStore, key: String, size: usize) -> Result<Revision, StoreError> {
    let then = vec![Op::Put { key: key.into(), value: vec![b'x'; size].into(), lease: 0 }];
    Ok(store.txn(Txn { then, ..Txn::default() }).await?.revision)
}

async fn keys(store: &EmbeddedStore) -> Vec<String> {
    let all = RangeRequest { range: KeyRange::prefix("/"), at: None, limit: 0 };
    let result = store.range(all).await.expect("range");
    result.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect()
}

fn log_of(path: &Path) -> PathBuf {
    path.with_file_name(format!("{}-wal", path.file_name().expect("name").to_string_lossy()))
}

/// A page of the log with its header; before the first comes the log's own header.
const FRAME: u64 = 24 + 4096;
const LOG_HEADER: u64 = 32;

/// A store's file and log as a crash may leave them, and how many keys were written.
struct Crashed {
    dir: tempfile::TempDir,
    file: Vec<u8>,
    log: Vec<u8>,
}

const WRITES: usize = 6;

impl Crashed {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("db");
        let store = EmbeddedStore::open(&path, Options::default()).expect("open");
        for i in 0..WRITES {
            put(&store, format!("/{i}"), 3000 * i).await.expect("put");
        }
        let (file, log) = (std::fs::read(&path).expect("file"), std::fs::read(log_of(&path)).expect("log"));
        Self { dir, file, log }
    }

    /// How many keys are there with another log. They must be the first ones, and writing must go on.
    async fn kept_with(&self, name: &str, log: &[u8]) -> usize {
        let path = self.dir.path().join(name);
        std::fs::write(&path, &self.file).expect("file");
        std::fs::write(log_of(&path), log).expect("log");
        let store = EmbeddedStore::open(&path, Options::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let found = keys(&store).await;
        let expected: Vec<_> = (0..found.len()).map(|i| format!("/{i}")).collect();
        assert_eq!(found, expected, "{name}");
        assert_eq!(store.revision().await, Ok(found.len() as u64 + 1), "{name}");
        assert_eq!(put(&store, "/more".into(), 1).await, Ok(found.len() as u64 + 2), "{name}");
        found.len()
    }
}

#[tokio::test]
async fn a_log_that_is_cut_off_anywhere_leaves_a_prefix_of_the_writes() {
    let crashed = Crashed::new().await;
    let frames = (crashed.log.len() as u64 - LOG_HEADER) / FRAME;
    let mut last = 0;
    for frame in 0..=frames {
        let boundary = LOG_HEADER + frame * FRAME;
        for cut in [boundary.saturating_sub(1), boundary, boundary + 1, boundary + 8, boundary + 24, boundary + 600] {
            let cut = usize::try_from(cut).expect("length").min(crashed.log.len());
            // Tables are made in the log too: before that the file is a new one.
            let kept = crashed.kept_with(&format!("cut-{frame}-{cut}"), &crashed.log[..cut]).await;
            assert!(kept >= last || cut < usize::try_from(boundary).expect("length"), "longer logs keep more");
            last = last.max(kept);
        }
    }
    assert_eq!(last, WRITES, "the whole log keeps everything");
}

#[tokio::test]
async fn a_damaged_end_of_the_log_leaves_a_prefix_of_the_writes() {
    let crashed = Crashed::new().await;
    let frames = (crashed.log.len() as u64 - LOG_HEADER) / FRAME;
    for frame in 0..frames {
        let start = usize::try_from(LOG_HEADER + frame * FRAME).expect("length");
        for offset in [0, 4, 8, 16, 24, 24 + 4095] {
            let mut log = crashed.log.clone();
            log[start + offset] ^= 0x41;
            let kept = crashed.kept_with(&format!("flip-{frame}-{offset}"), &log).await;
            assert!(kept < WRITES, "frame {frame} + {offset}: damage is noticed");
        }
        let mut log = crashed.log.clone();
        log[start..].fill(0);
        assert!(crashed.kept_with(&format!("zero-{frame}"), &log).await < WRITES);
    }
}

const FULL: &str = "PINTLE_STORE_FULL_DISK";

/// Runs on a disk of its own, small one. Does nothing when the test harness runs it as a test.
#[tokio::test]
async fn writes_until_the_disk_is_full() {
    let Ok(dir) = std::env::var(FULL) else { return };
    let dir = Path::new(&dir);
    let (filler, more) = (dir.join("filler"), dir.join("more"));
    for filler in [&filler, &more] {
        std::fs::write(filler, vec![0; 2 << 20]).expect("filler");
    }
    let path = dir.join("db");
    let store = EmbeddedStore::open(&path, Options::default()).expect("open");
    let mut done = 0;
    let refused = loop {
        match put(&store, format!("/{done:04}"), 20_000).await {
            Ok(_) => done += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&refused, StoreError::Unwritable(why) if why.contains("full")), "{refused}");
    assert!(done > 10, "only {done} writes");
    let expected: Vec<_> = (0..done).map(|i| format!("/{i:04}")).collect();
    assert_eq!(keys(&store).await, expected, "reads go on");
    assert!(put(&store, "/again".into(), 20_000).await.is_err());
    std::fs::remove_file(&filler).expect("make room");
    put(&store, "/room".into(), 20_000).await.expect("it goes on when there is room");
    drop(store);
    // Opening needs a little room.
    std::fs::remove_file(&more).expect("make room");
    let store = EmbeddedStore::open(&path, Options::default()).expect("open again");
    assert_eq!(keys(&store).await, [expected, vec!["/room".into()]].concat());
}

#[test]
fn a_full_disk_loses_nothing() {
    let dir = tempfile::tempdir().expect("directory");
    let me = std::env::current_exe().expect("this program");
    let script =
        "mount -t tmpfs -o size=10m tmpfs \"$1\" && exec \"$2\" --exact writes_until_the_disk_is_full --nocapture";
    // A user namespace as well, so that it need not be run as root.
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script, "sh"])
        .args([dir.path(), me.as_path()])
        .env(FULL, dir.path())
        .output()
        .expect("unshare");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("1 passed"), "{}", text(&output.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn under_constant_churn_the_file_stops_growing() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("db");
    let options = Options { keep_revisions: 500, ..Options::default() };
    let store = EmbeddedStore::open(&path, options).expect("open");
    let size = || {
        let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        bytes(&path) + bytes(&log_of(&path))
    };
    let mut sizes = Vec::new();
    for round in 0..8 {
        for _ in 0..30 {
            let writes = (0..50).map(|i| put(&store, format!("/{i}"), 1000 + round));
            for written in futures::future::join_all(writes).await {
                written.expect("put");
            }
        }
        sizes.push(size());
    }
    let (first, last) = (sizes[3], sizes[7]);
    assert!(last <= first + first / 10, "it goes on growing: {sizes:?}");
    assert!(last < 24 << 20, "{sizes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_in_flight_share_one_wait_for_the_disk() {
    let dir = tempfile::tempdir().expect("directory");
    let store = Arc::new(EmbeddedStore::open(dir.path().join("db"), Options::default()).expect("open"));
    let before = store.syncs();
    put(&store, "/one".into(), 100).await.expect("put");
    assert_eq!(store.syncs() - before, 1, "one change waits once");
    keys(&store).await;
    assert_eq!(store.syncs() - before, 1, "a read does not wait");
    let before = store.syncs();
    let writes = futures::future::join_all((0..64).map(|i| put(&store, format!("/many/{i}"), 100))).await;
    assert!(writes.iter().all(Result::is_ok));
    let waits = store.syncs() - before;
    assert!((1..64).contains(&waits), "64 changes at once waited {waits} times");
}
