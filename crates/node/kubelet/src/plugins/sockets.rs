//! The sockets below a folder, followed by inotify: who waits is told of those that came and went.

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use tokio::net::unix::pipe::Receiver;

/// How deep plugins may have their sockets.
const MAX_DEPTH: usize = 4;
/// Entries of all folders that are looked at.
const MAX_ENTRIES: usize = 1000;

/// Which file it is: another one in its place has another identity.
pub type Identity = (u64, u64, i64, i64);

/// Folders that are watched.
pub struct Sockets {
    folder: PathBuf,
    notices: Receiver,
}

impl Sockets {
    /// Watches a folder, which is made.
    ///
    /// # Errors
    /// It can't be made or watched.
    pub fn watch(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let fd = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        // Not a pipe, but read like one: tokio has no safe way to wait for other descriptors.
        let notices = Receiver::from_owned_fd_unchecked(fd)?;
        add(&notices, folder)?;
        Ok(Self { folder: folder.to_owned(), notices })
    }

    /// The sockets that there are. Folders that came are watched from here on, and read after that.
    pub fn present(&self) -> BTreeMap<PathBuf, Identity> {
        let mut found = BTreeMap::new();
        let mut left = MAX_ENTRIES;
        self.read(&self.folder, MAX_DEPTH, &mut left, &mut found);
        found
    }

    fn read(&self, folder: &Path, depth: usize, left: &mut usize, found: &mut BTreeMap<PathBuf, Identity>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if *left == 0 {
                tracing::warn!(folder = ?self.folder, "only {MAX_ENTRIES} entries are looked at for plugins");
                return;
            }
            *left -= 1;
            let (path, Ok(meta)) = (entry.path(), entry.metadata()) else { continue };
            if meta.file_type().is_socket() {
                found.insert(path, (meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec()));
            } else if meta.is_dir() && depth > 0 && add(&self.notices, &path).is_ok() {
                self.read(&path, depth - 1, left, found);
            }
        }
    }

    /// Waits until something has come or gone; what it is does not matter.
    ///
    /// # Errors
    /// The folders can't be watched any more.
    pub async fn changed(&self) -> io::Result<()> {
        loop {
            self.notices.readable().await?;
            let mut buffer = [0; 4 << 10];
            match self.notices.try_read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result.map(drop),
            }
        }
    }
}

fn add(notices: &Receiver, folder: &Path) -> io::Result<()> {
    let changes = WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVED_FROM
        | WatchFlags::ONLYDIR
        | WatchFlags::DONT_FOLLOW;
    add_watch(notices, folder, changes)?;
    Ok(())
}
