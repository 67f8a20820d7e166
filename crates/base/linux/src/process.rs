//! Makes, watches, signals and confines processes: clone3, pidfds, namespaces, credentials, descriptors.

use crate::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

/// A handle on a process that its number's reuse cannot mislead (pidfd_open(2)).
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    pub fn open(pid: i32) -> io::Result<Self> {
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self(rustix::process::pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// Sends a signal by its number.
    pub fn kill(&self, signal: i32) -> io::Result<()> {
        self::signal(self.0.as_fd(), signal)
    }

    /// Waits until the process ends, at most this long. Whether it has ended.
    pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        loop {
            match rustix::event::poll(&mut fds, Some(&timeout)) {
                Ok(ready) => return Ok(ready > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends a signal by its number to the process of a pidfd.
pub fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is passed; a descriptor of another kind is an error.
    let sent =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<u8>(), 0) };
    check(sent).map(drop)
}

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Forked {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

/// Namespaces of clone3, unshare and setns, as in clone(2).
pub mod namespace {
    pub const MOUNT: u64 = libc::CLONE_NEWNS as u64;
    pub const PID: u64 = libc::CLONE_NEWPID as u64;
    pub const NETWORK: u64 = libc::CLONE_NEWNET as u64;
    pub const IPC: u64 = libc::CLONE_NEWIPC as u64;
    pub const UTS: u64 = libc::CLONE_NEWUTS as u64;
    pub const CGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
    pub const USER: u64 = libc::CLONE_NEWUSER as u64;
}

/// As in linux/sched.h: the constant of libc has a type that cannot hold it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks with new namespaces, into a version 2 cgroup when one is given.
///
/// # Safety
/// The calling process has one thread only: the child goes on with a copy of all memory, and a lock that another
/// thread held would stay locked in it.
pub unsafe fn fork(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero is a valid `clone_args`, it holds numbers only.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM and with no stack this is a fork; `args` and `pidfd` outlive the call.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        return Ok(Forked::Child);
    }
    // SAFETY: the kernel has just put a new descriptor there, which nobody else owns.
    let pidfd = unsafe { std::os::fd::FromRawFd::from_raw_fd(pidfd) };
    Ok(Forked::Parent { pid: pid as i32, pidfd })
}

/// Moves the calling thread into new namespaces.
pub fn unshare(namespaces: u64) -> Result<()> {
    // SAFETY: only namespace flags pass, so no descriptor table or memory is unshared.
    let done = unsafe { libc::unshare((namespaces & NAMESPACES) as libc::c_int) };
    check(done.into()).map(drop).context(|| format!("unshare {namespaces:#x}"))
}

const NAMESPACES: u64 = namespace::MOUNT
    | namespace::PID
    | namespace::NETWORK
    | namespace::IPC
    | namespace::UTS
    | namespace::CGROUP
    | namespace::USER;

/// Moves the calling thread into namespaces: of a process for a pidfd, the one that a /proc/*/ns file names else.
pub fn enter(fd: BorrowedFd<'_>, namespaces: u64) -> Result<()> {
    // SAFETY: no memory is passed; a wrong descriptor is an error.
    let done = unsafe { libc::setns(fd.as_raw_fd(), (namespaces & NAMESPACES) as libc::c_int) };
    check(done.into()).map(drop).context(|| format!("setns {namespaces:#x}"))
}

/// Runs `work` on a thread of its own, since namespaces belong to threads and must not leak into a pool.
pub fn on_thread<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(256 << 10);
        let handle = thread.spawn_scoped(scope, work).context(|| "start a thread")?;
        handle.join().unwrap_or_else(|_| Err(crate::Error::invalid("work in a namespace", "its thread panicked")))
    })
}

/// Marks every descriptor from `first` on to be closed by exec (close_range(2)).
pub fn close_on_exec_from(first: u32) -> Result<()> {
    // SAFETY: no descriptor is closed now, so none that is in use goes away.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    check(done).map(drop).context(|| format!("mark descriptors from {first} close-on-exec"))
}

/// Closes every descriptor from `first` on, now.
///
/// # Safety
/// Nothing that owns such a descriptor may use it afterwards; meant for a forked child that goes its own way.
pub unsafe fn close_from(first: u32) -> Result<()> {
    // SAFETY: the caller's promise.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    check(done).map(drop).context(|| format!("close descriptors from {first}"))
}

/// Makes `fd` the descriptor number `target` (0, 1 or 2), open across exec.
pub fn place_stdio(fd: BorrowedFd<'_>, target: RawFd) -> Result<()> {
    assert!((0..=2).contains(&target), "only stdio is placed");
    // SAFETY: std's handles of 0, 1 and 2 are numbers, not owners: replacing what is behind them is sound.
    let done = unsafe { libc::dup2(fd.as_raw_fd(), target) };
    check(done.into()).map(drop).context(|| format!("make descriptor {} number {target}", fd.as_raw_fd()))
}

/// Takes the identity of a user: supplementary groups, group and user, real, effective and saved.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> Result<()> {
    // SAFETY: the pointer and length are of one slice; the others take numbers.
    check(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) }.into()).context(|| "set supplementary groups")?;
    // SAFETY: numbers only.
    check(unsafe { libc::setresgid(gid, gid, gid) }.into()).context(|| format!("become group {gid}"))?;
    // SAFETY: numbers only.
    check(unsafe { libc::setresuid(uid, uid, uid) }.into()).context(|| format!("become user {uid}"))?;
    Ok(())
}

/// Whose the files are that this process makes from now on; everything else stays. Capabilities over files go with
/// root's number: `capability::raise` takes them back.
pub fn own_files_as(uid: u32, gid: u32) -> Result<()> {
    // SAFETY: numbers only. Both return what was before, so the second call tells whether the first was taken.
    let (user, group) = unsafe {
        libc::setfsgid(gid);
        let group = libc::setfsgid(gid);
        libc::setfsuid(uid);
        (libc::setfsuid(uid), group)
    };
    match (user.cast_unsigned(), group.cast_unsigned()) == (uid, gid) {
        true => Ok(()),
        false => Err(crate::Error::invalid(format!("own files as {uid}:{gid}"), "the kernel refuses it")),
    }
}

/// Sets a resource limit of the calling process by its RLIMIT_ number.
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` outlives the call; an unknown resource is an error.
    let done = unsafe { libc::setrlimit(resource as _, &raw const limit) };
    check(done.into()).map(drop).context(|| format!("set resource limit {resource} to {soft}:{hard}"))
}

/// Replaces the calling process. Returns only when that failed.
pub fn exec(path: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end in null and their strings live until the call is over.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Shows the calling process to those who list processes as started with `words` only, in place of those that it was
/// started with, as setproctitle(3) does it: the kernel takes what stands there as the new text once its end has been
/// overwritten (proc(5), /proc/PID/cmdline).
///
/// # Safety
/// Nothing may look at the words that the process was started with any more; meant for a forked child.
pub unsafe fn show_as(words: &CStr) -> Result<()> {
    let path = "/proc/self/stat";
    let stat = std::fs::read_to_string(path).context(|| format!("read {path}"))?;
    // Fields 48 and 49; those after the name, which may have anything in it, begin with the third.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let mut fields = fields.split_ascii_whitespace().skip(48 - 3).map(|field| field.parse().unwrap_or(0_usize));
    let (start, end) = (fields.next().unwrap_or(0), fields.next().unwrap_or(0));
    let words = words.to_bytes_with_nul();
    if start == 0 || end.saturating_sub(start) <= words.len() {
        return Err(crate::Error::invalid("show other words of a process", "there is too little room"));
    }
    let place = std::ptr::with_exposed_provenance_mut::<u8>(start);
    // SAFETY: the kernel put the first words of the process there, on its own writable stack, and tells where they end;
    // the caller promises that nothing looks at them.
    unsafe {
        std::ptr::copy_nonoverlapping(words.as_ptr(), place, words.len());
        place.add(end - start - 1).write(b' ');
    }
    Ok(())
}

/// The processor time that all threads of this process have used so far.
pub fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to the time given, and only there; it fails for clocks that are unknown, which this is not.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

/// Ends the process at once: no destructors, no flushing. For a forked child.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; nothing runs after.
    unsafe { libc::_exit(code) }
}

/// Sets every signal to its default action and lets all through, as a program expects to be started.
pub fn reset_signals() {
    // SAFETY: setting default actions and an empty mask uses no memory but the local set.
    unsafe {
        for signal in 1..=libc::SIGRTMAX() {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Blocks signals and gives a descriptor that reads them (signalfd(2)).
pub fn signal_descriptor(signals: &[i32]) -> Result<OwnedFd> {
    // SAFETY: the set is local and initialised by sigemptyset; the descriptor that comes back is new.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()).into())
            .context(|| "block signals")?;
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        check(fd.into()).context(|| "make a signal descriptor")?;
        Ok(std::os::fd::FromRawFd::from_raw_fd(fd))
    }
}

/// A duplicate that is closed on exec.
pub fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    fd.try_clone_to_owned()
}

/// Takes a descriptor that this process was started with, and marks it close-on-exec.
///
/// # Safety
/// Nobody else in the process owns that number.
pub unsafe fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed; a number that is not open is an error.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: it is open, and the caller promises that it has no other owner.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(number) })
}

pub(crate) fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
