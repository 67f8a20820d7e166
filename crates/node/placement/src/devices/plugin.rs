//! One device plugin: calls to its socket, and following what it tells of its devices.

use super::DeviceError;
use super::messages::{
    ALLOCATE, AllocateRequest, AllocateResponse, ContainerAllocateRequest, ContainerAllocateResponse,
    ContainerPreferredAllocationRequest, DevicePluginOptions, Empty, LIST_AND_WATCH, ListAndWatchResponse, OPTIONS,
    PRE_START, PREFERRED, PreStartContainerRequest, PreferredAllocationRequest, PreferredAllocationResponse,
};
use super::pool::{self, Choice, Devices};
use pintle_grpc::SocketClient;
use std::path::Path;
use std::time::Duration;

/// How long a plugin may think before a pod is admitted or a container starts; upstream's for the latter.
const PATIENCE: Duration = Duration::from_secs(30);

/// A plugin that registered.
pub(super) struct Plugin {
    client: SocketClient,
    options: DevicePluginOptions,
}

impl Plugin {
    pub(super) fn new(socket: &Path, options: DevicePluginOptions) -> Self {
        Self { client: SocketClient::new(socket), options }
    }

    /// One that is asked for its options, as nobody has told them.
    pub(super) async fn asked(socket: &Path) -> Result<Self, DeviceError> {
        let client = SocketClient::new(socket);
        let options = client.call(OPTIONS, &Empty {}, Some(PATIENCE)).await.map_err(said)?;
        Ok(Self { client, options })
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> &Path {
        self.client.path()
    }

    /// Tells what devices there are until the plugin is gone.
    pub(super) async fn follow(&self, tell: impl Fn(Devices)) -> Result<(), pintle_grpc::CallError> {
        let mut stream = self.client.stream::<_, ListAndWatchResponse>(LIST_AND_WATCH, &Empty {}).await?;
        while let Some(told) = stream.next().await? {
            tell(pool::read(told.devices));
        }
        Ok(())
    }

    /// Which of the devices it would rather give; nothing when it does not care.
    pub(super) async fn preferred(&self, choice: &Choice, count: usize) -> Vec<String> {
        if !self.options.get_preferred_allocation_available || choice.from.is_empty() {
            return Vec::new();
        }
        let must_include: Vec<String> = choice.must.iter().cloned().collect();
        let available = must_include.iter().chain(&choice.from).cloned().collect();
        let size = i32::try_from(count).unwrap_or(i32::MAX);
        let containers = vec![ContainerPreferredAllocationRequest { available, must_include, size }];
        let request = PreferredAllocationRequest { containers };
        let answer = self.client.call::<_, PreferredAllocationResponse>(PREFERRED, &request, Some(PATIENCE)).await;
        match answer {
            Ok(answer) => answer.containers.into_iter().next().map(|of| of.ids).unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "a device plugin does not say which devices it prefers");
                Vec::new()
            }
        }
    }

    /// What a container needs to use the devices.
    pub(super) async fn allocate(&self, ids: &pool::Ids) -> Result<ContainerAllocateResponse, DeviceError> {
        let request =
            AllocateRequest { containers: vec![ContainerAllocateRequest { ids: ids.iter().cloned().collect() }] };
        let answer: AllocateResponse = self.client.call(ALLOCATE, &request, Some(PATIENCE)).await.map_err(said)?;
        let text = "no containers return in allocation response";
        answer.containers.into_iter().next().ok_or_else(|| DeviceError::Said(text.to_owned()))
    }

    /// Lets the plugin prepare the devices when it wants to.
    pub(super) async fn pre_start(&self, ids: Vec<String>) -> Result<(), DeviceError> {
        if !self.options.pre_start_required {
            return Ok(());
        }
        let request = PreStartContainerRequest { ids };
        let answered: Result<Empty, _> = self.client.call(PRE_START, &request, Some(PATIENCE)).await;
        answered.map(drop).map_err(said)
    }
}

fn said(error: pintle_grpc::CallError) -> DeviceError {
    DeviceError::Said(error.status().to_string())
}
