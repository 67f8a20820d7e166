//! The socket on which device plugins say that they are there.
//!
//! Plugins look for the socket to appear anew: then they register again. Sockets that an earlier run left are removed
//! with it, as upstream's kubelet does it.

use super::Devices;
use super::messages::{Empty, REGISTER, RegisterRequest, VERSION};
use futures::FutureExt;
use futures::future::BoxFuture;
use pintle_grpc::{Answer, Call, Code, Limits, Service, Status};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

const SOCKET: &str = "kubelet.sock";
const MAX_NAME: usize = 253;

/// The socket, and the folder that it is in with those of the plugins.
pub(crate) struct Listener {
    socket: UnixListener,
    folder: PathBuf,
}

/// Opens the socket in a folder, which is made.
///
/// # Errors
/// Another kubelet has it, or it cannot be made.
pub(crate) fn bind(folder: &Path) -> io::Result<Listener> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(SOCKET);
    if std::os::unix::net::UnixStream::connect(&path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another kubelet serves device plugins there"));
    }
    for entry in std::fs::read_dir(folder)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_socket()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(Listener { socket: pintle_grpc::bind(&path, 0o600)?, folder: folder.to_owned() })
}

pub(super) async fn serve(listener: Listener, devices: Arc<Devices>, stop: CancellationToken) {
    let registration = Registration { devices, folder: listener.folder, stop: stop.clone() };
    pintle_grpc::serve(listener.socket, Arc::new(registration), Limits::default(), stop).await;
}

struct Registration {
    devices: Arc<Devices>,
    folder: PathBuf,
    stop: CancellationToken,
}

impl Service for Registration {
    fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Result<Answer, Status>> {
        async move {
            if call.method != REGISTER {
                return Err(Status::unknown_method(&call.method));
            }
            let request: RegisterRequest = call.request()?;
            check(&request).map_err(|why| Status::new(Code::UNKNOWN, why))?;
            tracing::info!(resource = request.resource_name, endpoint = request.endpoint, "a device plugin registers");
            let socket = self.folder.join(&request.endpoint);
            let options = request.options.unwrap_or_default();
            self.devices.register(request.resource_name, &socket, options, &self.stop);
            Ok(Answer::once(&Empty {}))
        }
        .boxed()
    }
}

fn check(request: &RegisterRequest) -> Result<(), String> {
    if request.version != VERSION {
        let version = &request.version;
        return Err(format!(
            "requested API version {version:?} is not supported by kubelet. Supported version is {VERSION:?}"
        ));
    }
    if !is_extended(&request.resource_name) {
        return Err(format!("the ResourceName {:?} is invalid", request.resource_name));
    }
    let endpoint = &request.endpoint;
    if endpoint.is_empty() || endpoint.contains(['/', '\0']) || endpoint == ".." || endpoint == "." {
        return Err(format!("the endpoint {endpoint:?} is no name of a socket in the kubelet's folder"));
    }
    Ok(())
}

/// Checks what a plugin says of itself that was found by its socket.
pub(crate) fn check_plugin(name: &str, versions: &[String]) -> Result<(), String> {
    if !versions.iter().any(|version| version == VERSION) {
        let versions = versions.join(" ");
        return Err(format!("manager version, {VERSION}, is not among plugin supported versions [{versions}]"));
    }
    if !is_extended(name) {
        return Err(format!("invalid name of device plugin socket: the ResourceName {name:?} is invalid"));
    }
    Ok(())
}

/// Whether a name is of a resource that is not Kubernetes' own: `example.com/name`.
fn is_extended(name: &str) -> bool {
    let Some((domain, rest)) = name.split_once('/') else { return false };
    let own = domain == "kubernetes.io" || domain.ends_with(".kubernetes.io") || name.starts_with("requests.");
    let plain = |text: &str| {
        !text.is_empty()
            && text.len() <= MAX_NAME
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    !own && plain(domain) && plain(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registrations_are_checked() {
        let ask = |version: &str, endpoint: &str, name: &str| {
            let (version, endpoint, resource_name) = (version.to_owned(), endpoint.to_owned(), name.to_owned());
            check(&RegisterRequest { version, endpoint, resource_name, options: None })
        };
        assert_eq!(ask("v1beta1", "d.sock", "example.com/d"), Ok(()));
        let version = "requested API version \"v1\" is not supported by kubelet. Supported version is \"v1beta1\"";
        assert_eq!(ask("v1", "d.sock", "example.com/d"), Err(version.to_owned()));
        for name in ["cpu", "", "kubernetes.io/d", "a/b/c", "example.com/"] {
            assert_eq!(ask("v1beta1", "d.sock", name), Err(format!("the ResourceName {name:?} is invalid")));
        }
        assert!(ask("v1beta1", "../d.sock", "example.com/d").is_err());
        let found = |version: &str, name: &str| check_plugin(name, &[version.to_owned(), "v2".to_owned()]);
        assert_eq!(found("v1beta1", "example.com/d"), Ok(()));
        let version = "manager version, v1beta1, is not among plugin supported versions [v1 v2]";
        assert_eq!(found("v1", "example.com/d"), Err(version.to_owned()));
        assert!(found("v1beta1", "d").is_err());
    }
}
