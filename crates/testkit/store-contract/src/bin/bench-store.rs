//! `bench-store`: how fast the embedded store writes, how long a big one takes to open, how much its file grows.
//!
//! `bench-store [OBJECTS]`; without a number 200,000 objects of 1 KiB. The file is made in the directory for temporary
//! files and deleted at the end: set TMPDIR to measure another disk.

use pintle_store::embedded::Options;
use pintle_store::{EmbeddedStore, KeyRange, Op, RangeRequest, Store, StoreError, Txn};
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const VALUE_BYTES: usize = 1024;
const OBJECTS: usize = 200_000;
/// Changes in flight while the store is filled.
const FILLING: usize = 500;
const MEASURED: Duration = Duration::from_secs(3);

fn main() -> Result<(), Box<dyn Error>> {
    let objects = std::env::args().nth(1).map_or(Ok(OBJECTS), |number| number.parse())?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("state.db");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&path, objects))
}

async fn run(path: &Path, objects: usize) -> Result<(), Box<dyn Error>> {
    let store = Arc::new(EmbeddedStore::open(path, Options::default())?);
    let start = Instant::now();
    for first in (0..objects).step_by(FILLING) {
        let puts = (first..objects.min(first + FILLING)).map(|i| put(&store, key(i)));
        futures::future::try_join_all(puts).await?;
    }
    say(&format!("fill with {objects} objects of {VALUE_BYTES} bytes: {:.2} s", start.elapsed().as_secs_f64()))?;
    drop(store);
    let start = Instant::now();
    let store = Arc::new(EmbeddedStore::open(path, Options::default())?);
    say(&format!("open: {:.3} s", start.elapsed().as_secs_f64()))?;
    say(&format!("file: {:.1} MiB, with its log {:.1} MiB", size(path, false), size(path, true)))?;
    let start = Instant::now();
    let all = store.range(RangeRequest { range: KeyRange::prefix("/"), at: None, limit: 0 }).await?;
    say(&format!("read all {}: {:.3} s", all.kvs.len(), start.elapsed().as_secs_f64()))?;
    for clients in [1, 16, 64] {
        measure_writes(&store, clients, objects).await?;
    }
    say(&format!("after that, file with its log: {:.1} MiB", size(path, true)))
}

/// Overwrites objects for a while from several clients.
async fn measure_writes(store: &Arc<EmbeddedStore>, clients: usize, objects: usize) -> Result<(), Box<dyn Error>> {
    let (start, syncs) = (Instant::now(), store.syncs());
    let workers = (0..clients).map(|client| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut times = Vec::new();
            while start.elapsed() < MEASURED {
                let began = Instant::now();
                put(&store, key((client + clients * times.len()) % objects)).await?;
                times.push(began.elapsed());
            }
            Ok::<_, StoreError>(times)
        })
    });
    let mut times = Vec::new();
    for worker in workers.collect::<Vec<_>>() {
        times.extend(worker.await??);
    }
    times.sort_unstable();
    let per_second = times.len() as f64 / start.elapsed().as_secs_f64();
    let quantile = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    say(&format!(
        "write from {clients} clients: {per_second:.0} per second, p50 {:?}, p99 {:?}, {:.3} waits for the disk each",
        quantile(50),
        quantile(99),
        (store.syncs() - syncs) as f64 / times.len().max(1) as f64
    ))
}

fn key(number: usize) -> String {
    format!("/registry/configmaps/default/object-{number:08}")
}

async fn put(store: &EmbeddedStore, key: String) -> Result<(), StoreError> {
    let put = Op::Put { key: key.into(), value: vec![b'x'; VALUE_BYTES].into(), lease: 0 };
    store.txn(Txn { then: vec![put], ..Txn::default() }).await.map(drop)
}

/// In MiB.
fn size(path: &Path, with_log: bool) -> f64 {
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    let log = if with_log { bytes(&path.with_extension("db-wal")) } else { 0 };
    (bytes(path) + log) as f64 / f64::from(1 << 20)
}

fn say(line: &str) -> Result<(), Box<dyn Error>> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
