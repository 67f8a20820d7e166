//! Makes network namespaces that stay by a bind mount, and runs code inside them on a thread of its own.

use crate::process::{self, check, namespace};
use crate::{Context, Error, Result};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

/// Makes a network namespace with its loopback up and binds it to `path`, which must not exist. `inside` runs on a
/// thread in it first, for settings of its own.
///
/// # Errors
/// Nothing is left behind.
pub fn create(path: &Path, inside: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    File::create_new(path).context(|| format!("create {}", path.display()))?;
    let made = process::on_thread("netns", || {
        process::unshare(namespace::NETWORK)?;
        loopback_up()?;
        inside()?;
        rustix::mount::mount_bind("/proc/thread-self/ns/net", path)
            .context(|| format!("bind a network namespace to {}", path.display()))
    });
    if made.is_err() {
        // The first error is the one that helps.
        let _ = std::fs::remove_file(path);
    }
    made
}

/// Binds the calling process's network namespace to `path`, which must not exist.
pub fn bind_current(path: &Path) -> Result<()> {
    File::create_new(path).context(|| format!("create {}", path.display()))?;
    let bound = rustix::mount::mount_bind("/proc/thread-self/ns/net", path);
    if bound.is_err() {
        // The first error is the one that helps.
        let _ = std::fs::remove_file(path);
    }
    bound.context(|| format!("bind a network namespace to {}", path.display()))
}

/// Unbinds a network namespace. Succeeds when it is not there.
pub fn remove(path: &Path) -> Result<()> {
    crate::mount::unmount(path)?;
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::new(format!("remove {}", path.display()), e)),
        _ => Ok(()),
    }
}

/// Runs `work` in the network namespace bound to `path`. What it opens stays in that namespace.
pub fn within<T: Send>(path: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let namespace = File::open(path).context(|| format!("open network namespace {}", path.display()))?;
    process::on_thread("netns", move || {
        process::enter(namespace.as_fd(), namespace::NETWORK)?;
        work()
    })
}

/// Brings the loopback interface of the current network namespace up (netdevice(7)).
pub fn loopback_up() -> Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").context(|| "open a socket")?;
    // SAFETY: all-zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request outlives the call and names an interface.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    check(done.into()).map(drop).context(|| "bring the loopback interface up")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_made_entered_and_removed() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("net");
        create(&path, || Ok(())).expect("needs root");
        let port = within(&path, || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").context(|| "listen")?;
            Ok(listener.local_addr().context(|| "address")?.port())
        });
        assert!(port.unwrap() > 0);
        let links = within(&path, || std::fs::read_to_string("/proc/thread-self/net/dev").context(|| "read"));
        assert_eq!(links.unwrap().lines().count(), 3, "two header lines and the loopback");
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }
}
