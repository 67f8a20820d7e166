//! Seccomp programs of containers: which profile, compiled once for each set of capabilities.

use crate::engine::Engine;
use parking_lot::Mutex;
use pintle_cri::{ContainerSecurityContext, CriError, CriResult, SeccompProfile};
use pintle_linux::capability::Capabilities;
use pintle_seccomp::{default, oci};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Programs of the default profile, which depends on the capabilities alone.
#[derive(Debug, Default)]
pub struct Cache(Mutex<HashMap<Capabilities, String>>);

impl Engine {
    /// The program of a container in the digits that the shim takes; nothing for an unconfined one. `profile` is a
    /// profile in OCI's JSON form that stands before the one that the configuration names.
    ///
    /// # Errors
    /// A profile that is not there, empty or wrong is an error, never "unconfined" (CVE-2023-2431).
    pub(crate) fn seccomp_program(
        &self,
        security: &ContainerSecurityContext,
        profile: Option<&str>,
    ) -> CriResult<Option<String>> {
        if security.privileged {
            return Ok(None);
        }
        let capabilities = crate::spec::capabilities(security)?;
        if let Some(text) = profile {
            let profile = oci::parse(text.as_bytes(), capabilities);
            let profile = profile.map_err(|e| invalid(format!("Decoding seccomp profile failed: {e}")))?;
            return Ok(Some(pintle_seccomp::program(&profile).map_err(invalid)?));
        }
        match &security.seccomp {
            SeccompProfile::Unconfined => Ok(None),
            SeccompProfile::RuntimeDefault => {
                let mut cache = self.seccomp.0.lock();
                if let Some(program) = cache.get(&capabilities) {
                    return Ok(Some(program.clone()));
                }
                let program = pintle_seccomp::program(&default::profile(capabilities)).map_err(CriError::Internal)?;
                cache.insert(capabilities, program.clone());
                Ok(Some(program))
            }
            SeccompProfile::Localhost(name) => {
                let path = localhost(&self.config.seccomp_dir, name)?;
                let profile = oci::read(&path, capabilities).map_err(CriError::InvalidArgument)?;
                Ok(Some(pintle_seccomp::program(&profile).map_err(CriError::InvalidArgument)?))
            }
        }
    }
}

fn invalid(text: String) -> CriError {
    CriError::InvalidArgument(text)
}

fn localhost(directory: &Path, name: &str) -> CriResult<PathBuf> {
    let name = name.trim();
    if name.is_empty() {
        return Err(CriError::InvalidArgument("localhost seccomp profile has no name".to_owned()));
    }
    Ok(directory.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_localhost_profile_needs_a_name() {
        for name in ["", "  "] {
            assert!(localhost(Path::new("/profiles"), name).is_err());
        }
        assert_eq!(localhost(Path::new("/profiles"), "a/b.json").unwrap(), Path::new("/profiles/a/b.json"));
    }
}
