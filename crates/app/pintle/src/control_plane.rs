//! Starts the store, the API server, the scheduler and the controllers, and joins them.

use crate::cluster::Cluster;
use crate::credentials::Credentials;
use anyhow::{Context, Result};
use pintle_apiserver::{Server, User};
use pintle_auth::{Auth, AuthSettings};
use pintle_client::Client;
use pintle_clock::Clock;
use pintle_informer::{Election, Informers};
use pintle_kinds::Table;
use pintle_registry::Registry;
use pintle_types::Kind;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What upstream's controllers call themselves; objects show it as the manager of their fields.
const MANAGER: &str = "kube-controller-manager";

/// A control plane that answers requests.
pub(crate) struct ControlPlane {
    server: Arc<Server>,
    /// Read-only copies of objects, shared by all controllers and the scheduler.
    informers: Informers,
    clock: Arc<dyn Clock>,
    auth: Arc<Auth>,
    pod_ranges: Vec<ipnet::IpNet>,
    nodes: pintle_controllers::NodeSettings,
    autoscaling: pintle_controllers::AutoscalerSettings,
    node_name: String,
    /// Whether other servers may work on the same store.
    shares_store: bool,
    authority: Arc<pintle_pki::CertificateAuthority>,
    scheduling: Arc<pintle_scheduler::Configuration>,
}

impl ControlPlane {
    /// Opens the store and answers requests from then on, until `stop`.
    pub(crate) async fn start(
        cluster: &Cluster,
        credentials: &Credentials,
        clock: Arc<dyn Clock>,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self> {
        let scheduling = Arc::new(scheduling(&cluster.settings)?);
        let store = crate::datastore::open(cluster).await?;
        let store = crate::protection::seal(store, &cluster.settings, tasks, &stop)?;
        let shares_store = store.is_shared();
        let options = pintle_registry::Options {
            service_ranges: cluster.service_ranges.clone(),
            event_ttl_seconds: event_ttl(&cluster.settings)?,
            ..Default::default()
        };
        let registry = Registry::open(store, Table::builtin(), Arc::clone(&clock), options).await?;
        let settings = crate::access::settings(&cluster.settings, &credentials.front_proxy_authority)?;
        let (config, auth) = config(cluster, credentials, settings)?;
        let server = Server::new(config, registry, Arc::clone(&clock));
        // The listener first: what every cluster has names its port.
        let listener = server.bind().await?;
        server.start(stop.clone()).await?;
        tasks.spawn(serve(listener, stop.clone()));
        let manager = User::new("system:kube-controller-manager", &[]);
        let informers = Informers::new(client_of(&server, manager, MANAGER), stop);
        let authority = Arc::clone(&credentials.authority);
        let nodes = cluster.nodes()?;
        let autoscaling = cluster.autoscaling()?;
        let (node_name, pod_ranges) = (cluster.node_name.clone(), cluster.pod_ranges.clone());
        Ok(Self {
            server,
            informers,
            clock,
            auth,
            pod_ranges,
            nodes,
            autoscaling,
            node_name,
            shares_store,
            authority,
            scheduling,
        })
    }

    /// A client that acts as the given user, in process.
    pub(crate) fn client(&self, user: User, agent: &str) -> Client {
        client_of(&self.server, user, agent)
    }

    /// Starts what drives the cluster to what its objects ask for; of several servers with one store, one does.
    pub(crate) fn start_loops(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        let scheduler = pintle_scheduler::Config {
            client: self.client(User::new("system:kube-scheduler", &[]), "kube-scheduler"),
            informers: self.informers.clone(),
            clock: Arc::clone(&self.clock),
            seed: rand::random(),
            configuration: Arc::clone(&self.scheduling),
            metrics: pintle_scheduler::Metrics::new(self.server.metrics()),
        };
        let election = self.election(User::new("system:kube-scheduler", &[]), "kube-scheduler");
        tasks.spawn(lead(election, stop.clone(), move |stop| {
            let scheduling = pintle_scheduler::run(scheduler.clone(), stop);
            async move {
                if let Err(error) = scheduling.await {
                    tracing::error!(%error, "the scheduler ended");
                }
            }
        }));
        let server = Arc::clone(&self.server);
        let controllers = pintle_controllers::Config {
            clients: Arc::new(move |name: &str| {
                // What comes before the slash is the manager of the fields that they write.
                let agent = format!("{MANAGER}/{name}");
                client_of(&server, identity(name), &agent)
            }),
            issue_token: issue_token(Arc::clone(&self.auth)),
            informers: self.informers.clone(),
            clock: Arc::clone(&self.clock),
            pod_ranges: self.pod_ranges.clone(),
            nodes: self.nodes,
            autoscaling: self.autoscaling,
            authority: Arc::clone(&self.authority),
        };
        let election = self.election(User::new("system:kube-controller-manager", &[]), MANAGER);
        tasks.spawn(lead(election, stop.clone(), move |stop| pintle_controllers::run(controllers.clone(), stop)));
    }

    /// This server's candidacy for a Lease, where others share the store; alone it needs none.
    fn election(&self, user: User, lease: &str) -> Option<Election> {
        let candidate = || {
            let identity = format!("{}_{:032x}", self.node_name, rand::random::<u128>());
            Election::new(self.client(user, lease), Arc::clone(&self.clock), lease, &identity)
        };
        self.shares_store.then(candidate)
    }
}

/// How long events are kept, in seconds.
fn event_ttl(settings: &pintle_cli::Settings) -> Result<u64> {
    let seconds = crate::cluster::duration("event-ttl", &settings.event_ttl())?.as_secs();
    anyhow::ensure!(seconds > 0, "--event-ttl: events must be kept for a second at least");
    Ok(seconds)
}

/// What the scheduler is told; upstream's defaults when no file is named.
fn scheduling(settings: &pintle_cli::Settings) -> Result<pintle_scheduler::Configuration> {
    let Some(path) = &settings.scheduler_config else { return Ok(Default::default()) };
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("read the scheduler's configuration {}", path.display()))?;
    let configuration = pintle_scheduler::Configuration::parse(&text);
    let configuration = configuration.with_context(|| format!("--scheduler-config {}", path.display()))?;
    configuration.check().with_context(|| format!("--scheduler-config {}", path.display()))?;
    Ok(configuration)
}

async fn lead<W: Future<Output = ()>>(
    election: Option<Election>,
    stop: CancellationToken,
    work: impl Fn(CancellationToken) -> W,
) {
    match election {
        Some(election) => election.run(stop, work).await,
        None => work(stop).await,
    }
}

/// Who a controller acts as: a service account of its own, but for the one that makes tokens of service accounts.
fn identity(controller: &str) -> User {
    match controller {
        "tokens-controller" => User::new("system:kube-controller-manager", &[]),
        name => User::service_account("kube-system", name),
    }
}

/// Makes the tokens that secrets of service accounts hold.
fn issue_token(auth: Arc<Auth>) -> pintle_controllers::Issue {
    Arc::new(move |account, secret| {
        let accounts = &auth.tokens.accounts;
        accounts.issue_legacy(&account.to_value(), &secret.to_value()).map_err(|error| error.to_string())
    })
}

fn client_of(server: &Arc<Server>, user: User, agent: &str) -> Client {
    Client::new(Arc::new(server.local_transport(user))).with_user_agent(agent)
}

async fn serve(listener: pintle_apiserver::BoundServer, stop: CancellationToken) {
    if let Err(error) = listener.serve(stop).await {
        tracing::error!(%error, "the API server ended");
    }
}

fn config(
    cluster: &Cluster,
    credentials: &Credentials,
    auth: AuthSettings,
) -> Result<(pintle_apiserver::Config, Arc<Auth>)> {
    let authority = credentials.authority.certificate_pem();
    // Front proxies may have an authority of their own; whose a certificate is, is told apart later.
    let proxies = auth.front_proxy.as_ref().map(|proxy| proxy.authority_pem.as_str()).unwrap_or_default();
    let trusted = format!("{authority}\n{proxies}");
    let clients = pintle_pki::ClientCertificates::Optional(&trusted);
    let tls = pintle_pki::server_config_live(&credentials.api_server, clients)?;
    let bind = SocketAddr::new(cluster.settings.bind_address(), cluster.settings.https_port());
    let mut config = pintle_apiserver::Config::new(
        bind,
        cluster.node_ip,
        tls,
        authority.to_owned(),
        Arc::clone(&credentials.token_key),
    );
    config.service_address = cluster.kubernetes_ip;
    let ranges: Vec<String> = cluster.service_ranges.iter().map(ToString::to_string).collect();
    config.service_cidr = ranges.join(",");
    config.issuer = format!("https://kubernetes.default.svc.{}", cluster.settings.cluster_domain());
    config.front_proxy = Some(Arc::clone(&credentials.front_proxy));
    config.kubelet_tls = Some(pintle_pki::client_config_http1_live(authority, &credentials.kubelet_client)?);
    crate::protection::configure(&mut config, &cluster.settings)?;
    config.anonymous = cluster.settings.anonymous_auth.unwrap_or(true);
    let auth = Arc::new(auth.build(config.basics())?);
    config.auth = Some(Arc::clone(&auth));
    Ok((config, auth))
}
