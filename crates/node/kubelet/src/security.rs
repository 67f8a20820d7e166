//! Maps a container's and its pod's security context to what the runtime takes.
//!
//! Source: `pkg/securitycontext`, `pkg/kubelet/kuberuntime/security_context.go`.

use crate::reference::{pod_text, spec};
use pintle_cri::{
    ContainerSecurityContext, Image, MASKED_PATHS, NamespaceMode, NamespaceOption, READONLY_PATHS, SeccompProfile,
};
use pintle_types::k8s::api::core::v1::{Container, Pod, SeccompProfile as Wanted, SecurityContext};

/// A context that would break what the pod demands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SecurityError(pub String);

/// The namespaces of a pod's sandbox and containers.
pub fn namespaces(pod: &Pod) -> NamespaceOption {
    let spec = spec(pod);
    let host = |flag: Option<bool>| flag == Some(true);
    let pid = match (host(spec.host_pid), host(spec.share_process_namespace)) {
        (true, _) => NamespaceMode::Node,
        (false, true) => NamespaceMode::Pod,
        (false, false) => NamespaceMode::Container,
    };
    let or_pod = |flag| if host(flag) { NamespaceMode::Node } else { NamespaceMode::Pod };
    NamespaceOption { network: or_pod(spec.host_network), pid, ipc: or_pod(spec.host_ipc) }
}

/// Whether any container of the pod is privileged.
pub fn is_privileged(pod: &Pod) -> bool {
    let ephemeral = crate::reference::ephemeral_containers(pod);
    let mut contexts = crate::reference::lasting_containers(pod)
        .map(|(_, c)| c.security_context.as_ref())
        .chain(ephemeral.iter().map(|(c, _)| c.security_context.as_ref()));
    contexts.any(|c| c.and_then(|c| c.privileged) == Some(true))
}

/// The context of a container. `target` is the container whose processes an ephemeral one sees.
pub fn context(
    pod: &Pod,
    container: &Container,
    image: &Image,
    target: Option<String>,
) -> Result<ContainerSecurityContext, SecurityError> {
    let none = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&none);
    let of_pod = spec(pod).security_context.clone().unwrap_or_default();
    let run_as_user = own.run_as_user.or(of_pod.run_as_user);
    let non_root = own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true);
    if non_root {
        check_non_root(pod, container, run_as_user, image)?;
    }
    let privileged = own.privileged == Some(true);
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked");
    let hidden = |paths: &[&str]| {
        if privileged || unmasked { vec![] } else { paths.iter().map(|p| (*p).to_owned()).collect() }
    };
    let capabilities = own.capabilities.clone().unwrap_or_default();
    let mut namespaces = namespaces(pod);
    if let Some(target) = target {
        namespaces.pid = NamespaceMode::Target(target);
    }
    let mut groups = of_pod.supplemental_groups.clone().unwrap_or_default();
    groups.extend(of_pod.fs_group);
    Ok(ContainerSecurityContext {
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        privileged,
        namespaces,
        run_as_user: run_as_user.or(image.uid.filter(|_| image.username.is_empty())),
        run_as_group: own.run_as_group.or(of_pod.run_as_group),
        run_as_username: if run_as_user.is_none() { image.username.clone() } else { String::new() },
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups,
        supplemental_groups_strict: of_pod.supplemental_groups_policy.as_deref() == Some("Strict"),
        no_new_privs: own.allow_privilege_escalation == Some(false) && !privileged,
        seccomp: seccomp(own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref()))?,
        masked_paths: hidden(&MASKED_PATHS),
        readonly_paths: hidden(&READONLY_PATHS),
    })
}

fn seccomp(wanted: Option<&Wanted>) -> Result<SeccompProfile, SecurityError> {
    let Some(wanted) = wanted else { return Ok(SeccompProfile::Unconfined) };
    match wanted.type_.as_str() {
        "RuntimeDefault" => Ok(SeccompProfile::RuntimeDefault),
        "Localhost" => match wanted.localhost_profile.as_deref() {
            None | Some("") => {
                Err(SecurityError("localhostProfile must be set if seccompProfile type is Localhost.".into()))
            }
            Some(name) => Ok(SeccompProfile::Localhost(name.to_owned())),
        },
        _ => Ok(SeccompProfile::Unconfined),
    }
}

fn check_non_root(pod: &Pod, container: &Container, user: Option<i64>, image: &Image) -> Result<(), SecurityError> {
    let whose = format!("(pod: {:?}, container: {})", pod_text(pod), container.name);
    let why = match (user, image.uid) {
        (Some(0), _) => "container's runAsUser breaks non-root policy".to_owned(),
        (Some(_), _) => return Ok(()),
        (None, Some(0)) => "container has runAsNonRoot and image will run as root".to_owned(),
        (None, Some(_)) => return Ok(()),
        (None, None) if image.username.is_empty() => "container has runAsNonRoot and image will run as root".to_owned(),
        (None, None) => format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root",
            image.username
        ),
    };
    Err(SecurityError(format!("{why} {whose}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::pods::pod;
    use serde_json::json;

    fn check(
        own: serde_json::Value,
        of_pod: serde_json::Value,
        image: Image,
    ) -> Result<ContainerSecurityContext, String> {
        let pod = pod(json!({"securityContext": of_pod, "containers": [{"name": "c", "securityContext": own}]}));
        context(&pod, &spec(&pod).containers[0], &image, None).map_err(|e| e.0)
    }

    #[test]
    fn non_root_is_checked_against_spec_and_image() {
        let image = |uid: Option<i64>, name: &str| Image { uid, username: name.into(), ..Default::default() };
        let non_root = json!({"runAsNonRoot": true});
        let refused = |own, image| check(own, json!({}), image).unwrap_err();
        assert_eq!(
            refused(non_root.clone(), image(Some(0), "")),
            "container has runAsNonRoot and image will run as root (pod: \"p_default(u1)\", container: c)"
        );
        assert!(refused(non_root.clone(), image(None, "web")).contains("non-numeric user (web)"));
        assert!(
            refused(json!({"runAsNonRoot": true, "runAsUser": 0}), image(Some(5), "")).contains("runAsUser breaks")
        );
        assert!(check(non_root.clone(), json!({}), image(Some(7), "")).is_ok());
        assert!(check(non_root, json!({"runAsUser": 1}), image(Some(0), "")).is_ok());
    }

    #[test]
    fn an_empty_localhost_profile_is_an_error() {
        let own = json!({"seccompProfile": {"type": "Localhost"}});
        assert!(check(own, json!({}), Image::default()).is_err());
        let own = json!({"seccompProfile": {"type": "RuntimeDefault"}});
        assert_eq!(check(own, json!({}), Image::default()).unwrap().seccomp, SeccompProfile::RuntimeDefault);
    }

    #[test]
    fn the_container_overrides_the_pod() {
        let got = check(
            json!({"runAsUser": 5, "allowPrivilegeEscalation": false}),
            json!({"runAsUser": 6, "fsGroup": 9, "supplementalGroups": [8]}),
            Image::default(),
        )
        .unwrap();
        assert_eq!((got.run_as_user, got.no_new_privs, got.supplemental_groups), (Some(5), true, vec![8, 9]));
    }
}
