//! Kills a process that writes, again and again: every write that it was told of is there afterwards.

use pintle_store::embedded::Options;
use pintle_store::{EmbeddedStore, KeyRange, Op, RangeRequest, Store, Txn};
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

const FILE: &str = "PINTLE_STORE_CRASH_FILE";
const ROUNDS: usize = 8;

/// The process that is killed: writes without end and prints each key once it is durable. Does nothing when the test
/// harness runs it as a test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_until_killed() {
    let Ok(path) = std::env::var(FILE) else { return };
    let store = Arc::new(EmbeddedStore::open(path, Options::default()).expect("open"));
    let round = store.revision().await.expect("revision");
    let writers = (0..8).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for i in 0_u64.. {
                let key = format!("/{round}/{writer}/{i}");
                let then = vec![Op::Put { key: key.clone().into(), value: vec![b'x'; 500].into(), lease: 0 }];
                store.txn(Txn { then, ..Txn::default() }).await.expect("put");
                writeln!(std::io::stdout(), "durable {key}").expect("print");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("writer");
    }
}

/// Runs the writer, kills it after `lines` keys, and answers all keys that it told.
fn write_and_kill(path: &Path, lines: usize) -> HashSet<String> {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "writes_until_killed", "--nocapture", "--test-threads=1"])
        .env(FILE, path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the writer");
    let mut output = BufReader::new(child.stdout.take().expect("output")).lines();
    let key = |line: String| line.split_once("durable ").map(|(_, key)| key.to_owned());
    let mut told = HashSet::new();
    while told.len() < lines {
        let line = output.next().expect("the writer ended early").expect("line");
        told.extend(key(line));
    }
    child.kill().expect("kill");
    child.wait().expect("wait");
    // The last line may be cut off; a whole one ends with the last number that was written, which is then durable.
    let rest: Vec<String> = output.map_while(Result::ok).collect();
    told.extend(rest.into_iter().rev().skip(1).filter_map(key));
    told
}

#[test]
fn acknowledged_writes_survive_being_killed() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("db");
    let mut told = HashSet::new();
    for round in 0..ROUNDS {
        told.extend(write_and_kill(&path, 20 + 137 * round));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let (keys, revision) = runtime.block_on(async {
            let store = EmbeddedStore::open(&path, Options::default()).expect("open after the kill");
            let all = RangeRequest { range: KeyRange::prefix("/"), at: None, limit: 0 };
            let result = store.range(all).await.expect("range");
            let keys = result.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned());
            (keys.collect::<HashSet<_>>(), result.revision)
        });
        let lost: Vec<_> = told.difference(&keys).collect();
        assert!(lost.is_empty(), "round {round} lost {lost:?}");
        assert_eq!(revision, keys.len() as u64 + 1, "a revision for each key, none skipped");
    }
}
