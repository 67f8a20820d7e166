//! What only the embedded store promises: the file, what is left after crashes, full disks.

use super::*;
use crate::{Compare, Op};
use bytes::Bytes;
use tokio::runtime::Builder;

fn block_on<T>(work: impl Future<Output = T>) -> T {
    Builder::new_current_thread().enable_all().build().expect("runtime").block_on(work)
}

async fn put(store: &EmbeddedStore, key: String, value: Vec<u8>) -> Result<Revision, StoreError> {
    let then = vec![Op::Put { key: key.into(), value: value.into(), lease: 0 }];
    Ok(store.txn(Txn { then, ..Txn::default() }).await?.revision)
}

async fn read_at(store: &EmbeddedStore, at: Option<Revision>) -> Vec<String> {
    let result = store.range(RangeRequest { range: KeyRange::prefix("/"), at, limit: 0 }).await.expect("range");
    let show = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
    result.kvs.iter().map(|kv| format!("{}={}", show(&kv.key), show(&kv.value))).collect()
}

/// Options under which memory keeps nearly nothing of the past.
fn forgetful() -> Options {
    Options { history_bytes: 1, ..Options::default() }
}

#[test]
fn the_past_is_read_from_the_file_when_memory_forgot_it() {
    let dir = tempfile::tempdir().expect("directory");
    block_on(async {
        let store = EmbeddedStore::open(dir.path().join("db"), forgetful()).expect("open");
        for (key, value) in [("/a", "1"), ("/b", "1"), ("/a", "2")] {
            put(&store, key.into(), value.into()).await.expect("put");
        }
        let then = vec![Op::Delete(KeyRange::key("/b"))];
        store.txn(Txn { then, ..Txn::default() }).await.expect("delete");
        assert_eq!(read_at(&store, Some(3)).await, ["/a=1", "/b=1"]);
        assert_eq!(read_at(&store, Some(4)).await, ["/a=2", "/b=1"]);
        assert_eq!(read_at(&store, None).await, ["/a=2"]);
        let mut watch = store.watch(KeyRange::prefix("/"), 2).await.expect("watch");
        let mut seen = Vec::new();
        while seen.len() < 4 {
            let batch = futures::StreamExt::next(&mut watch).await.expect("open").expect("batch");
            seen.extend(batch.events.into_iter().map(|event| (batch.revision, event.previous().is_some(), event)));
        }
        let previous: Vec<_> = seen.iter().map(|(revision, previous, _)| (*revision, *previous)).collect();
        assert_eq!(previous, [(2, false), (3, false), (4, true), (5, true)]);
        assert!(matches!(&seen[3].2, crate::Event::Delete { prev: Some(prev), .. } if prev.value == "1"));
    });
}

#[test]
fn what_was_stored_is_there_after_reopening() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("db");
    let lease = block_on(async {
        let store = EmbeddedStore::open(&path, Options::default()).expect("open");
        put(&store, "/a".into(), b"1".to_vec()).await.expect("put");
        put(&store, "/a".into(), b"2".to_vec()).await.expect("put");
        put(&store, "/b".into(), b"1".to_vec()).await.expect("put");
        let lease = store.grant_lease(600).await.expect("lease");
        let then = vec![Op::Put { key: "/leased".into(), value: "x".into(), lease }, Op::Delete(KeyRange::key("/b"))];
        store.txn(Txn { then, ..Txn::default() }).await.expect("txn");
        let again = EmbeddedStore::open(&path, Options::default());
        assert!(matches!(again, Err(StoreError::Unwritable(why)) if why.contains("another process")));
        lease
    });
    block_on(async {
        let store = EmbeddedStore::open(&path, Options::default()).expect("reopen");
        assert_eq!(store.revision().await, Ok(5));
        assert_eq!(read_at(&store, None).await, ["/a=2", "/leased=x"]);
        assert_eq!(read_at(&store, Some(4)).await, ["/a=2", "/b=1"]);
        let unchanged = Compare::ModRevision("/a".into(), 3);
        assert!(store.txn(Txn { compare: vec![unchanged], ..Txn::default() }).await.expect("txn").succeeded);
        store.revoke_lease(lease).await.expect("revoke");
        assert_eq!(read_at(&store, None).await, ["/a=2"]);
        assert!(store.grant_lease(600).await.expect("lease") > lease, "a lease's number is not given twice");
    });
}

#[test]
fn a_compaction_survives_reopening_and_shrinks_the_file() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("db");
    block_on(async {
        let store = EmbeddedStore::open(&path, Options::default()).expect("open");
        for _ in 0..50 {
            put(&store, "/big".into(), vec![b'x'; 100_000]).await.expect("put");
        }
        let then = vec![Op::Delete(KeyRange::key("/big"))];
        let revision = store.txn(Txn { then, ..Txn::default() }).await.expect("delete").revision;
        put(&store, "/small".into(), b"x".to_vec()).await.expect("put");
        store.compact(revision + 1).await.expect("compact");
    });
    block_on(async {
        let store = EmbeddedStore::open(&path, Options::default()).expect("reopen");
        assert_eq!(store.revision().await, Ok(53));
        assert_eq!(read_at(&store, None).await, ["/small=x"]);
        let old = store.range(RangeRequest { range: KeyRange::prefix("/"), at: Some(52), limit: 0 }).await;
        assert_eq!(old.unwrap_err(), StoreError::Compacted { asked: 52, oldest: 53 });
    });
    let rows: i64 = rusqlite::Connection::open(&path)
        .and_then(|c| c.query_row("SELECT count(*) FROM changes", [], |row| row.get(0)))
        .expect("count");
    assert!(rows <= 2, "{rows} rows are left");
}

#[test]
fn a_busy_store_compacts_by_itself() {
    let dir = tempfile::tempdir().expect("directory");
    block_on(async {
        let options = Options { keep_revisions: 100, ..Options::default() };
        let store = EmbeddedStore::open(dir.path().join("db"), options).expect("open");
        for i in 0..300 {
            put(&store, "/k".into(), vec![b'x'; i]).await.expect("put");
        }
        let newest = store.revision().await.expect("revision");
        let read = |at| store.range(RangeRequest { range: KeyRange::prefix("/"), at: Some(at), limit: 0 });
        assert!(matches!(read(newest - 150).await, Err(StoreError::Compacted { .. })));
        assert_eq!(read(newest - 90).await.expect("kept").count, 1);
    });
}

#[test]
fn a_full_disk_refuses_writes_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().expect("directory");
    block_on(async {
        let options = Options { max_bytes: 1 << 20, ..Options::default() };
        let store = EmbeddedStore::open(dir.path().join("db"), options).expect("open");
        let mut last = 0;
        let refused = loop {
            match put(&store, "/k".into(), vec![b'x'; 50_000]).await {
                Ok(revision) => last = revision,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, StoreError::Unwritable(_)), "{refused:?}");
        assert_eq!(store.revision().await, Ok(last), "the refused write left nothing behind");
        assert_eq!(read_at(&store, None).await.len(), 1);
        store.compact(last).await.expect("compact");
        // The old revisions are deleted before the next write is taken.
        let revision = put(&store, "/k".into(), vec![b'y'; 50_000]).await.expect("there is room again");
        assert_eq!(revision, last + 1);
    });
}

#[test]
fn a_torn_log_loses_only_what_was_not_finished() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("db");
    let wal = dir.path().join("db-wal");
    let copies = block_on(async {
        let store = EmbeddedStore::open(&path, Options::default()).expect("open");
        put(&store, "/kept".into(), b"1".to_vec()).await.expect("put");
        let whole = std::fs::metadata(&wal).expect("log").len();
        put(&store, "/torn".into(), vec![b'x'; 10_000]).await.expect("put");
        let torn = std::fs::metadata(&wal).expect("log").len();
        let cuts = [whole, whole + 1, whole + 24, (whole + torn) / 2, torn - 1, torn];
        cuts.map(|cut| {
            let copy = dir.path().join(format!("copy-{cut}"));
            let copied_log = dir.path().join(format!("copy-{cut}-wal"));
            std::fs::copy(&path, &copy).expect("copy");
            std::fs::copy(&wal, &copied_log).expect("copy");
            let log = File::options().write(true).open(copied_log).expect("log");
            log.set_len(cut).expect("cut");
            (copy, cut == torn)
        })
    });
    for (copy, is_whole) in copies {
        block_on(async {
            let store = EmbeddedStore::open(&copy, Options::default()).expect("open what is left");
            let keys = read_at(&store, None).await.len();
            assert_eq!(keys, if is_whole { 2 } else { 1 }, "{}", copy.display());
            put(&store, "/more".into(), b"1".to_vec()).await.expect("it goes on");
        });
    }
}

#[test]
fn strangers_files_are_refused() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("db");
    std::fs::write(&path, vec![b'x'; 8192]).expect("write");
    let opened = block_on(async { EmbeddedStore::open(&path, Options::default()) });
    assert!(matches!(opened, Err(StoreError::Corrupt(_))));
}

#[test]
fn nobody_else_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("directory");
    block_on(async {
        let store = EmbeddedStore::open(dir.path().join("db"), Options::default()).expect("open");
        put(&store, "/secret".into(), b"1".to_vec()).await.expect("put");
        for file in dir.path().read_dir().expect("directory") {
            let file = file.expect("file");
            let mode = file.metadata().expect("metadata").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{:?} has mode {mode:o}", file.file_name());
        }
    });
}
