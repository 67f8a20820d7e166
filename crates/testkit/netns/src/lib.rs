//! Network namespaces for tests: made, entered, and gone with the test. Panics where something fails, as tests do.

use pintle_netlink::namespace;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A network namespace that vanishes with its owner. Needs root.
pub struct Space {
    pub path: PathBuf,
    /// The file that holds it.
    pub file: File,
}

impl Space {
    /// A new one, held by a file of that name in a folder.
    pub fn new(folder: &Path, name: &str) -> Self {
        let path = folder.join(name);
        namespace::create(&path).expect("namespaces need root");
        Self { file: namespace::open(&path).expect("just made"), path }
    }

    /// Runs `work` in it.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        namespace::enter(self.file.as_fd(), work).expect("enter")
    }

    /// Runs a shell command in it, which must succeed; gives what it printed.
    pub fn run(&self, command: &str) -> String {
        self.inside(|| {
            let output = Command::new("sh").args(["-c", command]).output().expect("sh");
            assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    }

    /// Listens there until the test ends, and tells every client whom it sees.
    pub fn serve(&self, address: &str) -> SocketAddr {
        let listener = self.inside(|| TcpListener::bind(address)).expect("bind");
        let bound = listener.local_addr().expect("address");
        std::thread::spawn(move || {
            while let Ok((mut stream, peer)) = listener.accept() {
                if write!(stream, "{}", peer.ip()).is_err() {
                    return;
                }
            }
        });
        bound
    }

    /// Whom the server at `to` sees when it is called from here.
    pub fn call(&self, to: &str, wait: Duration) -> std::io::Result<IpAddr> {
        let to: SocketAddr = to.parse().expect("address");
        let text = self.inside(|| {
            let mut stream = TcpStream::connect_timeout(&to, wait)?;
            stream.set_read_timeout(Some(wait))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok::<_, std::io::Error>(text)
        })?;
        text.parse().map_err(std::io::Error::other)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        namespace::delete(&self.path).expect("delete");
    }
}
