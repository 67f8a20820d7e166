//! Tells load balancers, on each service's `healthCheckNodePort`, whether this node has an endpoint of it.
//!
//! The answer is kube-proxy's, byte for byte.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use pintle_types::ObjectKey;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// How long a client may take to ask.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// Clients of one service at a time.
const CLIENTS: usize = 64;

/// What load balancers ask about one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) port: u16,
    /// Ready endpoints on this node.
    pub(crate) local_endpoints: usize,
}

/// The servers of all services that have such a port.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    running: HashMap<ObjectKey, Running>,
}

#[derive(Debug)]
struct Running {
    port: u16,
    local_endpoints: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Checks {
    /// Serves a service's answers from now on, or no longer.
    pub(crate) fn set(&mut self, key: &ObjectKey, check: Option<Check>, stop: &CancellationToken) {
        let Some(Check { port, local_endpoints }) = check else {
            self.running.remove(key);
            return;
        };
        if let Some(running) = self.running.get(key).filter(|running| running.port == port) {
            running.local_endpoints.store(local_endpoints, Ordering::Relaxed);
            return;
        }
        let stop = stop.child_token();
        let count = Arc::new(AtomicUsize::new(local_endpoints));
        tokio::spawn(serve(key.clone(), port, Arc::clone(&count), stop.clone()));
        self.running.insert(key.clone(), Running { port, local_endpoints: count, stop });
    }
}

async fn serve(service: ObjectKey, port: u16, local_endpoints: Arc<AtomicUsize>, stop: CancellationToken) {
    // One socket is for both families, where the machine has both.
    let both = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await;
    let bound = match both {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
    };
    let listener = match bound {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%service, port, %error, "can't listen on the health check port of a service");
            return;
        }
    };
    let clients = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let accepted = async {
            let permit = Arc::clone(&clients).acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        let Some((permit, accepted)) = stop.run_until_cancelled(accepted).await else { return };
        // Without descriptors there is nobody to answer; the next one waits for one that ends.
        let Ok((stream, _)) = accepted else {
            tokio::task::yield_now().await;
            continue;
        };
        let (service, count, stop) = (service.clone(), Arc::clone(&local_endpoints), stop.clone());
        tokio::spawn(async move {
            let answering = service_fn(move |_: Request<Incoming>| {
                let answer = answer(&service, count.load(Ordering::Relaxed));
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIME).max_buf_size(16 << 10);
            // A client that goes away in the middle is its own affair.
            drop(stop.run_until_cancelled(server.serve_connection(TokioIo::new(stream), answering)).await);
            drop(permit);
        });
    }
}

fn answer(service: &ObjectKey, local_endpoints: usize) -> Response<Full<Bytes>> {
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{}\",\n\t\t\"name\": \"{}\"\n\t}},\n\t\"localEndpoints\": \
         {local_endpoints},\n\t\"serviceProxyHealthy\": true\n}}",
        service.namespace, service.name
    );
    let mut response = Response::new(Full::new(Bytes::from(body)));
    if local_endpoints == 0 {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert("x-load-balancing-endpoint-weight", HeaderValue::from(local_endpoints));
    response
}
