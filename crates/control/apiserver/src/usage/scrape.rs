//! Asks kubelets what is used, once for all who want to know at the same time.

use crate::server::Server;
use crate::subresources::kubelet;
use futures::StreamExt;
use http::{HeaderValue, Request};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use pintle_client::{Body, BoxError, collect, empty_body};
use pintle_types::Status;
use pintle_usage::{Sample, Samples};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

/// How long a sample is new enough: metrics-server's resolution.
pub(super) const FRESH: Duration = Duration::from_secs(15);
/// A sample younger than this tells nothing that the next would not.
pub(super) const YOUNGEST: Duration = Duration::from_secs(2);
/// A rate that begins earlier tells of a time that nobody asked about: two new samples are taken.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Between those two.
const FIRST_WINDOW: Duration = Duration::from_secs(1);
/// A kubelet that takes longer is left out this time.
const PATIENCE: Duration = Duration::from_secs(10);
const MAX_BYTES: usize = 16 << 20;
/// Kubelets that are asked at the same time.
const AT_ONCE: usize = 32;

/// What is known of the nodes that somebody asked about.
#[derive(Default)]
pub(crate) struct Usage(Mutex<HashMap<String, Arc<AsyncMutex<NodeUsage>>>>);

/// The samples of one node, and when they were asked for.
#[derive(Default)]
pub(super) struct NodeUsage {
    asked: Option<Instant>,
    samples: Arc<Samples>,
}

/// The samples of nodes by their names.
pub(super) type ByNode = HashMap<String, Arc<Samples>>;

/// The samples of some nodes, none of that age; kubelets that can't be asked are left out.
pub(super) async fn fresh(server: &Server, nodes: BTreeSet<&str>, age: Duration) -> ByNode {
    let names: Vec<String> = nodes.into_iter().map(str::to_owned).collect();
    let asked = names.into_iter().map(|name| async move {
        let slot = server.usage.0.lock().entry(name.clone()).or_default().clone();
        let mut usage = slot.lock().await;
        match usage.refresh(server, &name, age).await {
            Ok(()) => Some((name, usage.samples.clone())),
            Err(status) => {
                tracing::debug!(node = name, why = status.message, "a kubelet did not tell what is used");
                server.usage.forget(&name, status.code);
                None
            }
        }
    });
    futures::stream::iter(asked).buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await
}

impl Usage {
    /// Nodes that are gone need no samples.
    fn forget(&self, name: &str, code: u16) {
        if code == 404 {
            self.0.lock().remove(name);
        }
    }
}

impl NodeUsage {
    async fn refresh(&mut self, server: &Server, node: &str, oldest: Duration) -> Result<(), Box<Status>> {
        let age = self.asked.map(|at| at.elapsed());
        if age.is_some_and(|age| age < oldest) {
            return Ok(());
        }
        let taken = self.take_all(server, node, age.is_none_or(|age| age > FORGOTTEN)).await;
        // A kubelet that fails is not asked again at once either.
        self.asked = Some(Instant::now());
        taken
    }

    async fn take_all(&mut self, server: &Server, node: &str, anew: bool) -> Result<(), Box<Status>> {
        if anew {
            self.samples = Arc::default();
            self.take(server, node).await?;
            tokio::time::sleep(FIRST_WINDOW).await;
        }
        self.take(server, node).await
    }

    async fn take(&mut self, server: &Server, node: &str) -> Result<(), Box<Status>> {
        let late = |_| Box::new(Status::internal("the kubelet took too long"));
        let text = tokio::time::timeout(PATIENCE, ask(server, node)).await.map_err(late)??;
        Arc::make_mut(&mut self.samples).push(Sample::parse(&text, server.clock.now().as_millisecond()));
        Ok(())
    }
}

async fn ask(server: &Server, node: &str) -> Result<String, Box<Status>> {
    let address = kubelet::address_of(server, node).await?;
    let mut sender = kubelet::connect(server, address).await?;
    let mut request: Request<Body> = Request::new(empty_body());
    *request.uri_mut() = http::Uri::from_static("/metrics/resource");
    if let Ok(host) = HeaderValue::from_str(&address.to_string()) {
        request.headers_mut().insert(http::header::HOST, host);
    }
    let failed = |why: String| Box::new(Status::internal(format!("asking the kubelet of {node}: {why}")));
    let answer = sender.send_request(request).await.map_err(|e| failed(e.to_string()))?;
    let code = answer.status();
    if !code.is_success() {
        return Err(failed(format!("it answered {code}")));
    }
    let body = Body::new(answer.into_body().map_err(BoxError::from));
    let bytes = collect(body, MAX_BYTES).await;
    let bytes = bytes.map_err(|e| failed(e.to_string()))?;
    String::from_utf8(bytes.to_vec()).map_err(|e| failed(e.to_string()))
}
