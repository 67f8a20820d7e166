//! The store's file: every change is a row, in the order in which they were made.
//!
//! ```text
//! changes  row = revision << 20 | place within the revision
//!          previous = row that this one replaces, 0 for none
//!          value is null for a deletion
//! leases   id, ttl_seconds
//! meta     compacted, revision, last_lease (what rows no longer tell after a compaction)
//! ```
//!
//! Opening reads all rows in order, so compaction (deleting replaced rows) is also what keeps opening fast. SQLite's
//! write-ahead log with `synchronous=FULL` makes a commit durable with one fsync; a torn tail of the log is an
//! uncommitted transaction.

use super::state::{Change, LeaseState, Live, ROW_BITS, Row, Slot, State, first_row, row_revision, tombstone};
use crate::{Event, KeyRange, KeyValue, LeaseId, Revision, StoreError, WatchBatch};
use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OpenFlags, params};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS changes (
        row INTEGER PRIMARY KEY,
        previous INTEGER NOT NULL,
        key BLOB NOT NULL,
        value BLOB,
        create_revision INTEGER NOT NULL,
        version INTEGER NOT NULL,
        lease INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS leases (id INTEGER PRIMARY KEY, ttl_seconds INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;";

/// The application id in the file's header ("pntl"), by which a stranger's database is told.
const APPLICATION_ID: i32 = 0x706e_746c;
/// The form of the tables; another number is another pintle's file.
const FORMAT: i32 = 1;
const PAGE_BYTES: u64 = 4096;

/// A replaced row, and the revision from which on nobody can read it.
pub(super) type Garbage = (Revision, Row);

/// What changed about a lease in one commit.
#[derive(Clone, Copy, Debug)]
pub(super) enum LeaseChange {
    Granted(LeaseId, u64),
    Ended(LeaseId),
}

/// Everything that one commit writes.
#[derive(Debug, Default)]
pub(super) struct Commit {
    pub changes: Vec<Change>,
    pub leases: Vec<LeaseChange>,
    /// The newly compacted revision, and the newest one at that time.
    pub compacted: Option<(Revision, Revision)>,
}

/// The connection of the writer. There is one.
pub(super) struct Disk {
    connection: Connection,
    /// Free pages above which the file is cut.
    slack_pages: u32,
}

pub(super) struct Loaded {
    pub state: State,
    pub garbage: VecDeque<Garbage>,
}

impl Disk {
    /// Opens or makes the file. `max_bytes` bounds its size.
    pub(super) fn open(path: &Path, max_bytes: u64) -> Result<Self, StoreError> {
        let connection = Connection::open(path).map_err(|e| at_path(path, e))?;
        let disk = Self { connection, slack_pages: 2048 };
        disk.prepare(max_bytes).map_err(|e| at_path(path, e))?;
        disk.check_identity(path)?;
        Ok(disk)
    }

    fn prepare(&self, max_bytes: u64) -> rusqlite::Result<()> {
        let c = &self.connection;
        c.busy_timeout(std::time::Duration::from_secs(5))?;
        c.pragma_update(None, "page_size", PAGE_BYTES)?;
        // Before the first table, or it has no effect.
        c.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        c.pragma_update(None, "journal_mode", "WAL")?;
        c.pragma_update(None, "synchronous", "FULL")?;
        c.pragma_update(None, "wal_autocheckpoint", 2000)?;
        c.pragma_update(None, "journal_size_limit", 64 << 20)?;
        c.pragma_update(None, "cache_size", -2000)?;
        c.pragma_update(None, "max_page_count", max_bytes / PAGE_BYTES)?;
        Ok(())
    }

    fn check_identity(&self, path: &Path) -> Result<(), StoreError> {
        let number = |name: &str| self.connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        let identity = number("application_id").and_then(|id| Ok((id, number("user_version")?)));
        match identity.map_err(|e| at_path(path, e))? {
            (APPLICATION_ID, FORMAT) => Ok(()),
            (0, 0) => self.create().map_err(|e| at_path(path, e)),
            (id, format) => Err(StoreError::Corrupt(format!(
                "{} is not a store of this version (application {id:#x}, format {format}); give another path",
                path.display()
            ))),
        }
    }

    fn create(&self) -> rusqlite::Result<()> {
        // In one step: a crash leaves an empty file or a whole one.
        let tx = self.connection.unchecked_transaction()?;
        tx.execute_batch(SCHEMA)?;
        tx.pragma_update(None, "user_version", FORMAT)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.commit()
    }

    /// Reads everything that is alive.
    pub(super) fn load(&self) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded { state: State::default(), garbage: VecDeque::new() };
        self.load_numbers(&mut loaded.state).and_then(|()| self.load_changes(&mut loaded)).map_err(store_error)?;
        Ok(loaded)
    }

    fn load_numbers(&self, state: &mut State) -> rusqlite::Result<()> {
        let mut meta = self.connection.prepare("SELECT name, number FROM meta")?;
        let mut rows = meta.query([])?;
        while let Some(row) = rows.next()? {
            let number = row.get::<_, i64>(1)? as u64;
            match row.get_ref(0)?.as_str()? {
                "compacted" => state.compacted = number,
                "revision" => state.revision = number,
                "last_lease" => state.last_lease = number as LeaseId,
                _ => {}
            }
        }
        let mut leases = self.connection.prepare("SELECT id, ttl_seconds FROM leases")?;
        let mut rows = leases.query([])?;
        while let Some(row) = rows.next()? {
            let lease = LeaseState { ttl_seconds: row.get::<_, i64>(1)? as u64, ..LeaseState::default() };
            state.leases.insert(row.get(0)?, lease);
        }
        Ok(())
    }

    fn load_changes(&self, loaded: &mut Loaded) -> rusqlite::Result<()> {
        let state = &mut loaded.state;
        let sql = "SELECT row, previous, key, value, create_revision, version, lease FROM changes ORDER BY row";
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(r) = rows.next()? {
            let (row, previous): (Row, Row) = (r.get(0)?, r.get(1)?);
            state.revision = state.revision.max(row_revision(row));
            if previous != 0 {
                loaded.garbage.push_back((row_revision(row), previous));
            }
            match read_kv(r, row)? {
                Ok(kv) => drop(state.live.insert(Slot(Arc::new(Live { kv, row })))),
                Err(key) => {
                    state.live.remove(&key[..]);
                    loaded.garbage.push_back((row_revision(row), row));
                }
            }
        }
        let leased = state.live.iter().filter(|slot| slot.0.kv.lease != 0);
        let leased: Vec<_> = leased.map(|slot| (slot.0.kv.lease, slot.0.kv.key.clone())).collect();
        for (lease, key) in leased {
            if let Some(lease) = state.leases.get_mut(&lease) {
                lease.keys.insert(key);
            }
        }
        Ok(())
    }

    /// Writes a group of changes: all of them durably, or none.
    // flow: pod 3/16
    pub(super) fn commit(&mut self, commit: &Commit) -> Result<(), StoreError> {
        self.try_commit(commit).map_err(store_error)
    }

    fn try_commit(&mut self, commit: &Commit) -> rusqlite::Result<()> {
        self.in_one(|connection| {
            insert_changes(connection, &commit.changes)?;
            for lease in &commit.leases {
                match *lease {
                    LeaseChange::Granted(id, ttl) => {
                        set_meta(connection, "last_lease", id as u64)?;
                        let insert = "INSERT INTO leases (id, ttl_seconds) VALUES (?, ?)";
                        connection.prepare_cached(insert)?.execute(params![id, ttl as i64])?
                    }
                    LeaseChange::Ended(id) => {
                        connection.prepare_cached("DELETE FROM leases WHERE id = ?")?.execute([id])?
                    }
                };
            }
            let Some((compacted, revision)) = commit.compacted else { return Ok(()) };
            set_meta(connection, "compacted", compacted)?;
            set_meta(connection, "revision", revision)
        })
    }

    /// Does all of the work or nothing. What frames it is read by SQLite once and not for each commit.
    fn in_one(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
        let run = |sql: &str| self.connection.prepare_cached(sql)?.execute([]).map(drop);
        run("BEGIN IMMEDIATE")?;
        let done = work(&self.connection).and_then(|()| run("COMMIT"));
        // Some errors have taken it all back already.
        if done.is_err() && !self.connection.is_autocommit() {
            // Its own error says no more than the first one, and the next beginning fails if this did.
            let _ = run("ROLLBACK");
        }
        done
    }

    /// Deletes replaced rows, and gives free pages back to the file system when there are many.
    pub(super) fn collect(&mut self, rows: impl Iterator<Item = Row>) -> Result<(), StoreError> {
        // Nobody waits for it: what a crash undoes is found and done again. The next commit makes it durable.
        let synchronous = |disk: &Self, how| disk.connection.pragma_update(None, "synchronous", how);
        let collected = synchronous(self, "NORMAL").and_then(|()| self.try_collect(rows));
        synchronous(self, "FULL").and(collected).map_err(store_error)
    }

    fn try_collect(&mut self, rows: impl Iterator<Item = Row>) -> rusqlite::Result<()> {
        self.in_one(|connection| {
            let mut statement = connection.prepare_cached("DELETE FROM changes WHERE row = ?")?;
            for row in rows {
                statement.execute([row])?;
            }
            Ok(())
        })?;
        let free: u32 = self.connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
        if free > self.slack_pages {
            // A step at a time, so that no writer waits long for it.
            self.connection.execute_batch("PRAGMA incremental_vacuum(256)")?;
        }
        Ok(())
    }
}

fn set_meta(connection: &Connection, name: &str, number: u64) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO meta (name, number) VALUES (?, ?)")?;
    statement.execute(params![name, number as i64]).map(drop)
}

fn insert_changes(connection: &Connection, changes: &[Change]) -> rusqlite::Result<()> {
    let sql =
        "INSERT INTO changes (row, previous, key, value, create_revision, version, lease) VALUES (?, ?, ?, ?, ?, ?, ?)";
    let mut statement = connection.prepare_cached(sql)?;
    for change in changes {
        let (kv, value) = match &change.event {
            Event::Put { kv, .. } => (kv, Some(&kv.value[..])),
            Event::Delete { kv, .. } => (kv, None),
        };
        statement.execute(params![
            change.row,
            change.previous_row,
            &kv.key[..],
            value,
            kv.create_revision as i64,
            kv.version as i64,
            kv.lease
        ])?;
    }
    Ok(())
}

/// The key and value of a row whose columns from the third on are those of `changes`; a deletion is its key.
fn read_kv(r: &rusqlite::Row<'_>, row: Row) -> rusqlite::Result<Result<KeyValue, Bytes>> {
    let key = Bytes::copy_from_slice(r.get_ref(2)?.as_blob()?);
    let Some(value) = r.get_ref(3)?.as_blob_or_null()? else { return Ok(Err(key)) };
    Ok(Ok(KeyValue {
        key,
        value: Bytes::copy_from_slice(value),
        create_revision: r.get::<_, i64>(4)? as u64,
        mod_revision: row_revision(row),
        version: r.get::<_, i64>(5)? as u64,
        lease: r.get(6)?,
    }))
}

/// Reads the past from the file, beside the writer.
#[derive(Clone, Debug)]
pub(super) struct Archive(pub PathBuf);

impl Archive {
    fn connect(&self) -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(&self.0, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        Ok(connection)
    }

    /// The changes from revision `from` to `to`, whole revisions, at least one if there is one, and not many more than
    /// `limit` changes.
    pub(super) fn changes(&self, from: Revision, to: Revision, limit: usize) -> Result<Vec<WatchBatch>, StoreError> {
        self.try_changes(from, to, limit).map_err(store_error)
    }

    fn try_changes(&self, from: Revision, to: Revision, limit: usize) -> rusqlite::Result<Vec<WatchBatch>> {
        let connection = self.connect()?;
        let sql = "SELECT c.row, c.previous, c.key, c.value, c.create_revision, c.version, c.lease,
                          p.value, p.create_revision, p.version, p.lease, p.row
                   FROM changes c LEFT JOIN changes p ON p.row = c.previous
                   WHERE c.row >= ? AND c.row < ? ORDER BY c.row";
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([first_row(from), first_row(to + 1)])?;
        let (mut batches, mut read): (Vec<WatchBatch>, usize) = (Vec::new(), 0);
        while let Some(r) = rows.next()? {
            let revision = row_revision(r.get(0)?);
            if batches.last().is_none_or(|batch| batch.revision != revision) {
                if read >= limit {
                    break;
                }
                batches.push(WatchBatch { revision, events: Vec::new() });
            }
            read += 1;
            let event = read_event(r)?;
            if let Some(batch) = batches.last_mut() {
                batch.events.push(event);
            }
        }
        Ok(batches)
    }

    /// A range as it was at a revision that is not compacted.
    pub(super) fn read_at(&self, range: &KeyRange, at: Revision) -> Result<Vec<KeyValue>, StoreError> {
        self.try_read_at(range, at).map_err(store_error)
    }

    fn try_read_at(&self, range: &KeyRange, at: Revision) -> rusqlite::Result<Vec<KeyValue>> {
        let connection = self.connect()?;
        let sql = "SELECT row, previous, key, value, create_revision, version, lease FROM changes
                   WHERE row < ? AND key >= ? ORDER BY row";
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query(params![first_row(at + 1), &range.start[..]])?;
        let mut found: BTreeMap<Bytes, KeyValue> = BTreeMap::new();
        while let Some(r) = rows.next()? {
            if !range.contains(r.get_ref(2)?.as_blob()?) {
                continue;
            }
            match read_kv(r, r.get(0)?)? {
                Ok(kv) => drop(found.insert(kv.key.clone(), kv)),
                Err(key) => drop(found.remove(&key)),
            }
        }
        Ok(found.into_values().collect())
    }
}

/// An event from a row joined with the row that it replaced (columns 7 to 11).
fn read_event(r: &rusqlite::Row<'_>) -> rusqlite::Result<Event> {
    let row: Row = r.get(0)?;
    let now = read_kv(r, row)?;
    let key = now.as_ref().map_or_else(|key| key.clone(), |kv| kv.key.clone());
    let prev = match r.get::<_, Option<Row>>(11)? {
        None => None,
        Some(row) => r.get_ref(7)?.as_blob_or_null()?.map(Bytes::copy_from_slice).map(|value| (row, value)),
    };
    let prev = match prev {
        None => None,
        Some((row, value)) => Some(KeyValue {
            key: key.clone(),
            value,
            create_revision: r.get::<_, i64>(8)? as u64,
            mod_revision: row_revision(row),
            version: r.get::<_, i64>(9)? as u64,
            lease: r.get(10)?,
        }),
    };
    Ok(match now {
        Ok(kv) => Event::Put { kv, prev },
        Err(key) => Event::Delete { kv: tombstone(&key, row as u64 >> ROW_BITS), prev },
    })
}

/// SQLite's errors in the words of the trait.
fn store_error(error: rusqlite::Error) -> StoreError {
    let text = error.to_string();
    match error.sqlite_error() {
        Some(e) if e.extended_code == rusqlite::ffi::SQLITE_IOERR_FSYNC => StoreError::Unavailable(text),
        Some(e) => match e.code {
            ErrorCode::DiskFull | ErrorCode::SystemIoFailure | ErrorCode::ReadOnly | ErrorCode::CannotOpen => {
                StoreError::Unwritable(text)
            }
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreError::Corrupt(text),
            _ => StoreError::Unavailable(text),
        },
        None => StoreError::Corrupt(text),
    }
}

fn at_path(path: &Path, error: rusqlite::Error) -> StoreError {
    let place = |text: String| format!("{}: {text}", path.display());
    match store_error(error) {
        StoreError::Unavailable(text) => StoreError::Unavailable(place(text)),
        StoreError::Unwritable(text) => StoreError::Unwritable(place(text)),
        StoreError::Corrupt(text) => StoreError::Corrupt(place(text)),
        other => other,
    }
}
