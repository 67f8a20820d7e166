//! Kills a process that writes, again and again: what it said was done is there afterwards, and nothing that was not.

use pintle_store::embedded::Options;
use pintle_store::{EmbeddedStore, KeyRange, Op, RangeRequest, Revision, Store, Txn};
use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

const FILE: &str = "PINTLE_STORE_CRASH_FILE";
const ROUNDS: usize = 8;
const WRITERS: u64 = 8;
const KEYS: u64 = 7;

/// What a writer's operation of that number does: to which of its keys, and what is there then.
fn operation(number: u64) -> (u64, Option<u64>) {
    (number % KEYS, (number % 5 != 4).then_some(number))
}

/// A writer's keys after so many operations.
fn model(operations: u64) -> BTreeMap<u64, u64> {
    let mut keys = BTreeMap::new();
    for (key, value) in (0..operations).map(operation) {
        match value {
            Some(value) => drop(keys.insert(key, value)),
            None => drop(keys.remove(&key)),
        }
    }
    keys
}

/// The process that is killed: writes without end and prints each operation once it is durable. Does nothing when the
/// test harness runs it as a test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_until_killed() {
    let Ok(path) = std::env::var(FILE) else { return };
    // The past goes soon, so that it is killed in the middle of compactions, too.
    let options = Options { keep_revisions: 100, ..Options::default() };
    let store = Arc::new(EmbeddedStore::open(path, options).expect("open"));
    let round = store.revision().await.expect("revision");
    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0.. {
                let (key, value) = operation(number);
                let key = format!("/{round}/{writer}/{key}");
                let op = match value {
                    Some(value) => Op::Put { key: key.into(), value: format!("{value:0500}").into(), lease: 0 },
                    None => Op::Delete(KeyRange::key(key)),
                };
                store.txn(Txn { then: vec![op], ..Txn::default() }).await.expect("write");
                writeln!(std::io::stdout(), "durable {round}/{writer}/{number}").expect("print");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("writer");
    }
}

/// Runs the writer, kills it after `lines` operations, and answers how many each writer told to be done.
fn write_and_kill(path: &Path, lines: usize) -> (String, BTreeMap<u64, u64>) {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "writes_until_killed", "--nocapture", "--test-threads=1"])
        .env(FILE, path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the writer");
    let mut output = BufReader::new(child.stdout.take().expect("output")).lines();
    let mut told = Vec::new();
    while told.len() < lines {
        let line = output.next().expect("the writer ended early").expect("line");
        told.extend(line.split_once("durable ").map(|(_, operation)| operation.to_owned()));
    }
    child.kill().expect("kill");
    child.wait().expect("wait");
    // The last line may be cut off: it is not counted.
    let rest: Vec<String> = output.map_while(Result::ok).collect();
    told.extend(rest.iter().rev().skip(1).filter_map(|line| Some(line.split_once("durable ")?.1.to_owned())));
    let (mut round, mut done) = (String::new(), (0..WRITERS).map(|writer| (writer, 0)).collect::<BTreeMap<_, _>>());
    for operation in told {
        let parts: Vec<&str> = operation.split('/').collect();
        let [of, writer, number] = parts[..] else { panic!("{operation:?}") };
        round = of.to_owned();
        let number: u64 = number.parse().expect("number");
        let count = done.get_mut(&writer.parse().expect("writer")).expect("a known writer");
        *count = (*count).max(number + 1);
    }
    (round, done)
}

/// Everything that the store holds, by round and writer.
async fn read_all(path: &Path) -> (BTreeMap<(String, u64), BTreeMap<u64, u64>>, Revision) {
    let store = EmbeddedStore::open(path, Options::default()).expect("open after the kill");
    let all = RangeRequest { range: KeyRange::prefix("/"), at: None, limit: 0 };
    let result = store.range(all).await.expect("range");
    let mut held: BTreeMap<_, BTreeMap<u64, u64>> = BTreeMap::new();
    let mut revisions = HashSet::new();
    for kv in &result.kvs {
        assert!(kv.mod_revision <= result.revision && revisions.insert(kv.mod_revision), "{kv:?}");
        let key = std::str::from_utf8(&kv.key).expect("text");
        let parts: Vec<&str> = key.split('/').collect();
        let value = std::str::from_utf8(&kv.value).expect("text").parse().expect("number");
        let writer = (parts[1].to_owned(), parts[2].parse().expect("writer"));
        held.entry(writer).or_default().insert(parts[3].parse().expect("key"), value);
    }
    (held, result.revision)
}

#[test]
fn acknowledged_writes_survive_being_killed() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("db");
    let mut settled: BTreeMap<(String, u64), BTreeMap<u64, u64>> = BTreeMap::new();
    let mut newest = 0;
    for number in 0..ROUNDS {
        let (round, done) = write_and_kill(&path, 20 + 137 * number);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let (mut held, revision) = runtime.block_on(read_all(&path));
        assert!(revision > newest, "revisions go on");
        newest = revision;
        for (writer, told) in done {
            let found = held.remove(&(round.clone(), writer)).unwrap_or_default();
            // Besides what was told, one operation may be done and not told, and one told by the line that was cut off.
            let explained = (told..=told + 2).any(|operations| model(operations) == found);
            assert!(explained, "writer {writer} of round {round} told {told} operations: {found:?}");
            if !found.is_empty() {
                settled.insert((round.clone(), writer), found);
            }
        }
        held.extend(settled.iter().filter(|((of, _), _)| *of == round).map(|(k, v)| (k.clone(), v.clone())));
        assert_eq!(held, settled, "what earlier rounds left has not changed");
    }
}
