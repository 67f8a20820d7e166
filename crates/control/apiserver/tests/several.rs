//! Several API servers on one etcd: all of them are endpoints of `default/kubernetes`, as long as they live, and of the
//! candidates behind them one leads.

mod support;

use futures::StreamExt;
use http::Method;
use pintle_apiserver::{Config, Server};
use pintle_client::{Client, WatchEvent, WatchOptions};
use pintle_informer::{Election, ElectionTimes};
use pintle_kinds::Table;
use pintle_pki::{CertificateAuthority, ClientCertificates, SigningKey, server_config};
use pintle_registry::{Options, Registry};
use pintle_store::{EmbeddedStore, EtcdStore, Store, etcd};
use pintle_store_contract::etcd::Cluster;
use pintle_types::k8s::api::core::v1::Endpoints;
use pintle_types::k8s::api::discovery::v1::EndpointSlice;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use support::{admin, request};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A server with threads of its own, so that it can be killed.
struct Member {
    threads: Option<Runtime>,
    server: Arc<Server>,
    stop: CancellationToken,
    port: u16,
}

async fn etcd(cluster: &Cluster) -> Arc<dyn Store> {
    let options = etcd::Options { compact_every: None, ..etcd::Options::new(cluster.endpoints()) };
    Arc::new(EtcdStore::open(options).await.expect("open"))
}

/// Serves on the loopback address that ends in `number`, and says it is `192.0.2.NUMBER`.
async fn serve(store: Arc<dyn Store>, number: u8, port: u16) -> (Arc<Server>, CancellationToken, u16) {
    let clock = pintle_clock::system();
    let keys = tempfile::tempdir().unwrap();
    let authority = CertificateAuthority::load_or_create(keys.path(), "ca", clock.now()).unwrap();
    let identity = authority.issue_server("api", &["127.0.0.1".into()], clock.now()).unwrap();
    let tls = server_config(&identity, ClientCertificates::Optional(authority.certificate_pem())).unwrap();
    let bind = SocketAddr::new(IpAddr::from([127, 0, 0, number]), port);
    let key = Arc::new(SigningKey::ephemeral().unwrap());
    let ca = authority.certificate_pem().to_owned();
    let mut config = Config::new(bind, [192, 0, 2, number].into(), tls, ca, key);
    config.endpoint_ttl_seconds = 2;
    let registry = Registry::open(store, Table::builtin(), clock.clone(), Options::default()).await.unwrap();
    let (server, stop) = (Server::new(config, registry, clock), CancellationToken::new());
    let bound = server.bind().await.unwrap();
    let port = bound.address().port();
    server.start(stop.clone()).await.unwrap();
    tokio::spawn(bound.serve(stop.clone()));
    (server, stop, port)
}

impl Member {
    async fn start<S, F>(number: u8, port: u16, store: S) -> Self
    where
        S: FnOnce() -> F + Send + 'static,
        F: Future<Output = Arc<dyn Store>> + Send,
    {
        let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let started = threads.spawn(async move { serve(store().await, number, port).await });
        let (server, stop, port) = started.await.unwrap();
        Self { threads: Some(threads), server, stop, port }
    }

    fn client(&self) -> Client {
        Client::new(Arc::new(self.server.local_transport(admin())))
    }

    /// Ends it without a word.
    fn kill(mut self) {
        self.threads.take().unwrap().shutdown_background();
    }

    /// Waits until the endpoints are these, in both forms.
    async fn has_endpoints(&self, expected: &[&str]) {
        let options = WatchOptions::default();
        let mut watch = self.client().watch::<Endpoints>("default", &options).await.unwrap();
        let of = |endpoints: Endpoints| {
            let subsets = endpoints.subsets.into_iter().flatten();
            subsets.flat_map(|s| s.addresses.unwrap_or_default()).map(|a| a.ip).collect::<Vec<_>>()
        };
        while let Some(event) = watch.next().await {
            if let WatchEvent::Added(now) | WatchEvent::Modified(now) = event.unwrap()
                && of(now) == expected
            {
                break;
            }
        }
        let mut watch = self.client().watch::<EndpointSlice>("default", &options).await.unwrap();
        while let Some(event) = watch.next().await {
            if let WatchEvent::Added(now) | WatchEvent::Modified(now) = event.unwrap()
                && now.endpoints.iter().flatten().flat_map(|e| &e.addresses).eq(expected)
            {
                return;
            }
        }
        panic!("the watch ended");
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

/// A candidate that says when it leads, in the threads of a member.
fn candidate(member: &Member, name: &'static str, heard: &mpsc::UnboundedSender<&'static str>) {
    let times = ElectionTimes {
        lease: Duration::from_secs(2),
        renew: Duration::from_millis(1500),
        retry: Duration::from_millis(100),
    };
    let election = Election::new(member.client(), pintle_clock::system(), "tests", name).timed(times);
    let heard = heard.clone();
    let work = move |leading: CancellationToken| {
        let heard = heard.clone();
        async move {
            heard.send(name).unwrap();
            leading.cancelled().await;
        }
    };
    member.threads.as_ref().unwrap().spawn(election.run(member.stop.clone(), work));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_servers_are_endpoints_until_they_stop() {
    let cluster = Arc::new(Cluster::start(1));
    let store = || {
        let cluster = cluster.clone();
        move || async move { etcd(&cluster).await }
    };
    let one = Member::start(1, 0, store()).await;
    one.has_endpoints(&["192.0.2.1"]).await;
    let two = Member::start(2, one.port, store()).await;
    for member in [&one, &two] {
        member.has_endpoints(&["192.0.2.1", "192.0.2.2"]).await;
    }
    one.stop.cancel();
    two.has_endpoints(&["192.0.2.2"]).await;
    two.stop.cancel();
    drop((one, two));
    let three = Member::start(3, 0, store()).await;
    three.has_endpoints(&["192.0.2.3"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_server_was_and_led_passes_to_the_other() {
    let cluster = Arc::new(Cluster::start(1));
    let store = || {
        let cluster = cluster.clone();
        move || async move { etcd(&cluster).await }
    };
    let one = Member::start(1, 0, store()).await;
    let two = Member::start(2, one.port, store()).await;
    two.has_endpoints(&["192.0.2.1", "192.0.2.2"]).await;
    let (heard, mut told) = mpsc::unbounded_channel();
    candidate(&one, "one", &heard);
    assert_eq!(told.recv().await, Some("one"));
    candidate(&two, "two", &heard);
    one.kill();
    assert_eq!(told.recv().await, Some("two"));
    two.has_endpoints(&["192.0.2.2"]).await;
    assert!(told.try_recv().is_err(), "one leads at a time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_store_tells_the_same_and_lost_endpoints_come_back() {
    let shared: Arc<dyn Store> = Arc::new(EmbeddedStore::in_memory().unwrap());
    let store = || {
        let shared = shared.clone();
        move || async move { shared }
    };
    let one = Member::start(1, 0, store()).await;
    let two = Member::start(2, one.port, store()).await;
    one.has_endpoints(&["192.0.2.1", "192.0.2.2"]).await;
    let path = "/api/v1/namespaces/default/endpoints/kubernetes";
    let transport = one.server.local_transport(admin());
    let deleted = pintle_client::Transport::call(&transport, request(Method::DELETE, path, Value::Null)).await;
    assert!(deleted.unwrap().status().is_success());
    one.has_endpoints(&["192.0.2.1", "192.0.2.2"]).await;
    one.kill();
    two.has_endpoints(&["192.0.2.2"]).await;
}
