//! Plugins that the kubelet looks for: whoever has a socket in the folder is asked what it is and told whether it is
//! taken.
//!
//! A device plugin may say so here, too. Other kinds are refused with an error that says which.
//! Source: `pkg/kubelet/pluginmanager`, KEP-595.

pub mod messages;
mod sockets;

use messages::{GET_INFO, InfoRequest, NOTIFY, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use pintle_grpc::{CallError, SocketClient};
use pintle_placement::Placement;
use sockets::{Identity, Sockets};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// How long a plugin may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between attempts to ask one that does not answer.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(120);

/// One socket: which file it is, the plugin behind it once it is taken, and who asks it until then.
struct Known {
    identity: Identity,
    asking: AbortHandle,
    taken: Option<Taken>,
}

/// A plugin that was taken.
struct Taken {
    resource: String,
    endpoint: PathBuf,
}

/// Looks for plugins.
pub struct Plugins {
    placement: Arc<Placement>,
    folder: PathBuf,
    known: BTreeMap<PathBuf, Known>,
    asking: JoinSet<Option<Taken>>,
}

impl Plugins {
    pub fn new(placement: Arc<Placement>, folder: PathBuf) -> Self {
        Self { placement, folder, known: BTreeMap::new(), asking: JoinSet::new() }
    }

    /// Works until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let sockets = match Sockets::watch(&self.folder) {
            Ok(sockets) => sockets,
            Err(error) => {
                let folder = &self.folder;
                return tracing::warn!(%error, ?folder, "plugins can't be looked for (--device-plugin-dir)");
            }
        };
        let work = async {
            loop {
                self.look(sockets.present(), &stop);
                if let Err(error) = self.until_changed(&sockets).await {
                    return tracing::error!(%error, folder = ?self.folder, "plugins can't be looked for any more");
                }
            }
        };
        // The other way to end is told in the log.
        let _ended = stop.run_until_cancelled(work).await;
    }

    async fn until_changed(&mut self, sockets: &Sockets) -> std::io::Result<()> {
        loop {
            tokio::select! {
                changed = sockets.changed() => return changed,
                Some(asked) = self.asking.join_next_with_id() => {
                    // A task that was given up has nothing to tell.
                    let Ok((id, taken)) = asked else { continue };
                    if let Some(known) = self.known.values_mut().find(|known| known.asking.id() == id) {
                        known.taken = taken;
                    }
                }
            }
        }
    }

    /// Lets go of plugins whose sockets went, and asks those whose came.
    fn look(&mut self, present: BTreeMap<PathBuf, Identity>, stop: &CancellationToken) {
        let placement = &self.placement;
        self.known.retain(|path, known| {
            let stays = present.get(path) == Some(&known.identity);
            if !stays {
                known.asking.abort();
                if let Some(taken) = &known.taken {
                    placement.forget_plugin(&taken.resource, &taken.endpoint);
                }
            }
            stays
        });
        for (path, identity) in present {
            self.known.entry(path).or_insert_with_key(|path| {
                let (placement, path, stop) = (Arc::clone(&self.placement), path.clone(), stop.clone());
                let asking = self.asking.spawn(async move { ask(&placement, &path, &stop).await });
                Known { identity, asking, taken: None }
            });
        }
    }
}

/// Asks a plugin what it is until it says so, takes or refuses it, and tells it.
async fn ask(placement: &Arc<Placement>, socket: &Path, stop: &CancellationToken) -> Option<Taken> {
    let client = SocketClient::new(socket);
    let mut delay = FIRST_RETRY;
    let info: PluginInfo = loop {
        match client.call(GET_INFO, &InfoRequest {}, Some(PATIENCE)).await {
            Ok(info) => break info,
            Err(error) => tracing::debug!(%error, ?socket, "a plugin does not say what it is; asking again"),
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(LAST_RETRY);
    };
    match take(placement, socket, &info, stop).await {
        Ok(taken) => {
            tracing::info!(name = info.name, kind = info.kind, ?socket, "a plugin is taken");
            match tell(&client, true, "").await {
                Ok(()) => Some(taken),
                Err(error) => {
                    tracing::warn!(%error, ?socket, "a plugin can't be told that it is taken");
                    placement.forget_plugin(&taken.resource, &taken.endpoint);
                    None
                }
            }
        }
        Err(why) => {
            tracing::warn!(why, name = info.name, ?socket, "a plugin is refused");
            if let Err(error) = tell(&client, false, &why).await {
                tracing::debug!(%error, ?socket, "a plugin can't be told why it is refused");
            }
            None
        }
    }
}

async fn tell(client: &SocketClient, plugin_registered: bool, error: &str) -> Result<(), CallError> {
    let status = RegistrationStatus { plugin_registered, error: error.to_owned() };
    client.call::<_, RegistrationStatusResponse>(NOTIFY, &status, Some(PATIENCE)).await.map(drop)
}

/// Takes a plugin that there is use for, or says why not.
async fn take(
    placement: &Arc<Placement>,
    socket: &Path,
    info: &PluginInfo,
    stop: &CancellationToken,
) -> Result<Taken, String> {
    let invalid = |why: &str| format!("RegisterPlugin error -- plugin validation failed with err: {why}");
    match info.kind.as_str() {
        "DevicePlugin" => {
            placement.check_plugin(&info.name, &info.supported_versions).map_err(|why| invalid(&why))?;
            let endpoint =
                if info.endpoint.is_empty() { socket.to_owned() } else { PathBuf::from(info.endpoint.clone()) };
            let registered = placement.register_plugin(&info.name, &endpoint, stop).await;
            registered.map_err(|why| format!("RegisterPlugin error -- plugin registration failed with err: {why}"))?;
            Ok(Taken { resource: info.name.clone(), endpoint })
        }
        "CSIPlugin" => Err(invalid("CSI drivers are not supported")),
        "DRAPlugin" => Err(invalid("DRA drivers are not supported")),
        kind => {
            let socket = socket.display();
            Err(format!("RegisterPlugin error -- no handler registered for plugin type: {kind} at socket {socket}"))
        }
    }
}
