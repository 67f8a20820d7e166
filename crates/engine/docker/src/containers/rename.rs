//! Gives containers other names.

use super::{create, names};
use crate::daemon::Daemon;
use crate::error::{DockerError, Result};

impl Daemon {
    /// # Errors
    /// 400 for a name that is none or its own, 409 for one that is taken.
    pub fn rename_container(&self, wanted: &str, name: &str) -> Result<()> {
        if name.is_empty() {
            return Err(DockerError::invalid("Neither old nor new names may be empty"));
        }
        let container = self.container(wanted)?;
        let slashed = format!("/{}", name.strip_prefix('/').unwrap_or(name));
        let old = container.name();
        if slashed == format!("/{old}") {
            return Err(DockerError::invalid("Renaming a container with the same name as its current name"));
        }
        let failed = |e: DockerError| DockerError::new(e.status, format!("Error when allocating new name: {e}"));
        names::check(&slashed).map_err(failed)?;
        let new = slashed.trim_start_matches('/').to_owned();
        let taken = self.containers.take_name(&new, &container.id);
        taken.map_err(|owner| failed(create::name_taken(&new, &owner)))?;
        if let Err(error) = self.change(&container, |r| r.name.clone_from(&new)) {
            self.containers.free_name(&new);
            return Err(error);
        }
        self.containers.free_name(&old);
        self.tell_of(&container, "rename", &[("oldName", &format!("/{old}"))]);
        Ok(())
    }
}
