//! The machine below the kubelet: the real one, or one that is only pretended, for the simulator and hollow nodes.

use crate::node::machine::{self, Machine};
use crate::volumes::{Mounter, SystemMounter};
use std::path::Path;
use std::sync::Arc;

/// Bytes of the pretended disk.
const PRETENDED_DISK: u64 = 100 << 30;

/// Which machine the kubelet runs on.
#[derive(Clone, Debug, Default)]
pub enum Hardware {
    #[default]
    Real,
    /// Has the given size and no other load. Volumes are plain directories, there are no cgroups, and nothing is done
    /// in other threads: with tokio's paused time the same events give the same outcome.
    Pretended(Machine),
}

impl Hardware {
    pub(crate) fn is_real(&self) -> bool {
        matches!(self, Self::Real)
    }

    pub(crate) fn machine(&self) -> Machine {
        match self {
            Self::Real => Machine::read(),
            Self::Pretended(machine) => machine.clone(),
        }
    }

    pub(crate) fn mounter(&self) -> Arc<dyn Mounter> {
        match self {
            Self::Real => Arc::new(SystemMounter),
            Self::Pretended(_) => Arc::new(Directories),
        }
    }

    /// Bytes of the filesystem that holds a path: all, and those available.
    pub(crate) fn disk(&self, path: &Path) -> Option<(u64, u64)> {
        match self {
            Self::Real => machine::disk(path),
            Self::Pretended(_) => Some((PRETENDED_DISK, PRETENDED_DISK)),
        }
    }

    /// Does what may wait for a disk: apart from the tasks of this thread, or in its place where that must not be.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        match self {
            Self::Real => tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string())?,
            Self::Pretended(_) => work(),
        }
    }
}

/// Mounts nothing: memory and huge pages are directories like any other.
pub(crate) struct Directories;

impl Mounter for Directories {
    fn tmpfs(&self, _: &Path, _: Option<u64>) -> std::io::Result<()> {
        Ok(())
    }

    fn huge_pages(&self, _: &Path, _: u64) -> std::io::Result<()> {
        Ok(())
    }

    fn unmount(&self, _: &Path) -> std::io::Result<()> {
        Ok(())
    }

    fn is_mounted(&self, _: &Path) -> std::io::Result<bool> {
        Ok(false)
    }
}
