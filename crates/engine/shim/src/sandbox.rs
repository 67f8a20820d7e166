//! Makes the namespaces that the containers of a sandbox share, by moving the shim itself into them.

use crate::pause;
use crate::protocol::SandboxSpec;
use crate::rootfs::shared_memory;
use crate::user_namespace::UserNamespace;
use pintle_linux::capability::{self, Capabilities};
use pintle_linux::cgroup::Cgroups;
use pintle_linux::mount::{self, READ_ONLY, Tree};
use pintle_linux::process::{self, Forked, namespace};
use pintle_linux::{Context, Error, Result};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The sandbox of this shim.
pub struct Sandbox {
    pub cgroups: Cgroups,
    pub mount_point: PathBuf,
    /// The pid namespace of the shim, to come back to.
    home: OwnedFd,
    shm: Option<SharedMemory>,
    pub pause: Option<Pause>,
    own_ipc: bool,
    /// Whose users and groups its containers have; none is the machine's.
    pub users: Option<UserNamespace>,
    /// A mount namespace with few mounts, to build roots in; none is a copy of the machine's.
    pub bare_mounts: Option<OwnedFd>,
}

pub struct Pause {
    pub handle: OwnedFd,
}

/// The sandbox's /dev/shm. Before Linux 6.15 a detached mount cannot be cloned: then it is mounted at a path.
enum SharedMemory {
    Detached(Tree),
    At(PathBuf),
    /// That of another sandbox, mounted at a path.
    Of(PathBuf),
}

impl Sandbox {
    pub fn create(spec: &SandboxSpec, bare_mounts: Option<OwnedFd>) -> Result<Self> {
        let home = File::open("/proc/self/ns/pid").context(|| "open the pid namespace")?.into();
        let users = enter_namespaces(spec)?;
        for (name, value) in &spec.sysctls {
            set_sysctl(name, value, spec)?;
        }
        let mut sandbox = Self {
            cgroups: spec.cgroups.clone().map_or_else(Cgroups::detect, Ok)?,
            mount_point: spec.mount_point.clone(),
            home,
            shm: None,
            pause: None,
            own_ipc: spec.ipc,
            users,
            bare_mounts,
        };
        if let Some((_, shm)) = &spec.join_ipc {
            sandbox.shm = Some(SharedMemory::Of(shm.clone()));
        } else if spec.ipc && !spec.no_shm {
            sandbox.shm = Some(SharedMemory::create(spec)?);
        }
        if spec.shared_pid {
            sandbox.pause = Some(sandbox.start_pause(&spec.cgroup)?);
        }
        Ok(sandbox)
    }

    /// /dev/shm for one more container. In the machine's ipc namespace it is the machine's.
    pub fn shared_memory(&self) -> Result<Option<Tree>> {
        match &self.shm {
            Some(SharedMemory::Detached(tree)) => Tree::clone_of(tree.as_fd(), false).map(Some),
            Some(SharedMemory::At(path) | SharedMemory::Of(path)) => Tree::clone_of_path(path, false).map(Some),
            None if !self.own_ipc && Path::new("/dev/shm").is_dir() => {
                Tree::clone_of_path(Path::new("/dev/shm"), false).map(Some)
            }
            None => Ok(None),
        }
    }

    /// Forks a child into the pid namespace of a process, or into new or inherited ones.
    ///
    /// # Errors
    /// When the shim cannot come back into its own pid namespace it ends: nothing it forks would be where it belongs.
    pub fn fork(&self, namespaces: u64, pid_of: Option<BorrowedFd<'_>>, cgroup: &str) -> Result<Forked> {
        let directory = match self.cgroups.hierarchies()[0].v2 {
            true => Some(self.cgroups.open_v2(cgroup)?),
            false => None,
        };
        if let Some(target) = pid_of {
            process::enter(target, namespace::PID)?;
        }
        // SAFETY: the shim has one thread.
        #[allow(unsafe_code)]
        let forked = unsafe { process::fork(namespaces, directory.as_ref().map(AsFd::as_fd)) };
        let parent = !matches!(forked, Ok(Forked::Child));
        if pid_of.is_some() && parent && process::enter(self.home.as_fd(), namespace::PID).is_err() {
            process::exit_now(70);
        }
        forked.context(|| "fork")
    }

    /// Joins the cgroup from within the child, where the fork could not do it.
    pub fn join_cgroup(&self, cgroup: &str) -> Result<()> {
        if self.cgroups.hierarchies()[0].v2 { Ok(()) } else { self.cgroups.attach(cgroup, 0) }
    }

    /// What to fork with for a mount namespace of its own, where [`Self::enter_mounts`] does not make one.
    fn mounts_by_fork(&self) -> u64 {
        if self.bare_mounts.is_some() { 0 } else { namespace::MOUNT }
    }

    /// Moves a child into a copy of the bare mount namespace, where there is one.
    pub fn enter_mounts(&self) -> Result<()> {
        let Some(bare) = &self.bare_mounts else { return Ok(()) };
        process::enter(bare.as_fd(), namespace::MOUNT)?;
        process::unshare(namespace::MOUNT)
    }

    fn start_pause(&self, cgroup: &str) -> Result<Pause> {
        match self.fork(namespace::PID | self.mounts_by_fork(), None, cgroup)? {
            Forked::Parent { pidfd, .. } => Ok(Pause { handle: pidfd }),
            Forked::Child => {
                let code = self.confine_pause(cgroup).map_or(71, |()| pause::run());
                process::exit_now(code)
            }
        }
    }

    /// Containers share the pid namespace with it, so it has nothing that they could want: an empty root, no
    /// descriptors, no capabilities, a user of its own. It ends with the shim.
    fn confine_pause(&self, cgroup: &str) -> Result<()> {
        self.enter_mounts()?;
        self.join_cgroup(cgroup)?;
        // While there is a /proc. Names for ps; without them nothing is wrong.
        // SAFETY: this child never looks at the words that the shim was started with.
        #[allow(unsafe_code)]
        let _ = unsafe { process::show_as(c"/pause") };
        let _ = rustix::thread::set_name(c"pause");
        mount::propagate_all(mount::Propagation::Private)?;
        let size = [("size", "0"), ("nr_inodes", "1")];
        Tree::of_filesystem("tmpfs", &size, mount::INERT | READ_ONLY)?.attach_at(&self.mount_point)?;
        mount::pivot_into(&self.mount_point)?;
        // SAFETY: this child uses none of the descriptors that it inherited.
        #[allow(unsafe_code)]
        unsafe {
            process::close_from(0)?;
        }
        capability::limit(Capabilities::NONE)?;
        process::become_user(65535, 65535, &[])?;
        capability::apply(Capabilities::NONE)?;
        let killed = Some(rustix::process::Signal::KILL);
        rustix::process::set_parent_process_death_signal(killed).context(|| "end with the shim")
    }

    /// Ends the pause process and takes away what would stay on the host.
    pub fn close(&self) {
        if let Some(pause) = &self.pause
            && process::signal(pause.handle.as_fd(), libc::SIGKILL).is_ok()
        {
            // It ends without fail, and all others of its namespace with it.
            let id = rustix::process::WaitId::PidFd(pause.handle.as_fd());
            let _ = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED);
        }
        if let Some(SharedMemory::At(path)) = &self.shm {
            // The daemon unmounts everything below the sandbox's directory once more.
            let _ = mount::unmount(path);
        }
    }
}

impl SharedMemory {
    fn create(spec: &SandboxSpec) -> Result<Self> {
        let tree = shared_memory(spec.shm_bytes)?;
        if !spec.shareable_shm && Tree::clone_of(tree.as_fd(), false).is_ok() {
            return Ok(Self::Detached(tree));
        }
        let path = spec.directory.join("shm");
        std::fs::create_dir_all(&path).context(|| format!("create {}", path.display()))?;
        tree.attach_at(&path)?;
        Ok(Self::At(path))
    }
}

fn enter_namespaces(spec: &SandboxSpec) -> Result<Option<UserNamespace>> {
    let users = match spec.id_mappings.is_empty() {
        true => None,
        false => Some(UserNamespace::create(spec)?),
    };
    if let Some(path) = spec.netns.as_ref().filter(|_| users.is_none() || spec.joined_netns) {
        let netns = File::open(path).context(|| format!("open network namespace {}", path.display()))?;
        process::enter(netns.as_fd(), namespace::NETWORK)?;
    }
    let mut new = 0;
    if let Some((path, _)) = &spec.join_ipc {
        let ipc = File::open(path).context(|| format!("open ipc namespace {}", path.display()))?;
        process::enter(ipc.as_fd(), namespace::IPC)?;
    } else if spec.ipc && users.is_none() {
        new |= namespace::IPC;
    }
    let named = !spec.hostname.is_empty() || !spec.domainname.is_empty();
    if named && users.is_none() {
        new |= namespace::UTS;
    }
    if new != 0 {
        process::unshare(new)?;
    }
    if !spec.hostname.is_empty() {
        rustix::system::sethostname(spec.hostname.as_bytes())
            .context(|| format!("set the host name {:?}", spec.hostname))?;
    }
    if !spec.domainname.is_empty() {
        rustix::system::setdomainname(spec.domainname.as_bytes())
            .context(|| format!("set the domain name {:?}", spec.domainname))?;
    }
    Ok(users)
}

/// Sets a kernel parameter of a namespace of the sandbox. One of the machine is refused, as is one of a namespace
/// that the sandbox shares with the machine.
fn set_sysctl(name: &str, value: &str, spec: &SandboxSpec) -> Result<()> {
    let name = name.replace('/', ".");
    let of_ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."].iter().any(|p| name.starts_with(p));
    let allowed = name.starts_with("net.") && spec.netns.is_some() || of_ipc && spec.ipc;
    if !allowed || name.split('.').any(str::is_empty) {
        return Err(Error::invalid(format!("sysctl {name:?}"), "is not in a namespace of the pod"));
    }
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    std::fs::write(&path, value).context(|| format!("write {value:?} to {}", path.display()))
}
