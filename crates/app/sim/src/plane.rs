//! The control plane: a store that stays, and servers, schedulers and controllers that come and go above it.

use crate::capacity::Meter;
use crate::chance::Chance;
use crate::link::{Link, Weather};
use anyhow::Result;
use parking_lot::Mutex;
use pintle_apiserver::{Config, Server, User};
use pintle_clock::Clock;
use pintle_informer::Informers;
use pintle_kinds::Table;
use pintle_pki::{CertificateAuthority, ClientCertificates, SigningKey};
use pintle_registry::{Options, Registry};
use pintle_store::Store;
use std::path::Path;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const MANAGER: &str = "system:kube-controller-manager";

/// Where the server of the moment is found.
#[derive(Default)]
pub(crate) struct Front(Mutex<Option<(Arc<Server>, CancellationToken)>>);

impl Front {
    /// The server, and what ends with it; nothing while none runs.
    pub(crate) fn server(&self) -> Option<(Arc<Server>, CancellationToken)> {
        self.0.lock().clone()
    }
}

/// What runs above the store and can be ended and begun.
struct Part {
    link: Arc<Link>,
    running: Option<(CancellationToken, JoinSet<()>)>,
}

impl Part {
    async fn end(&mut self) {
        if let Some((stop, mut tasks)) = self.running.take() {
            stop.cancel();
            // As killed: whatever it was at stays half done.
            tasks.shutdown().await;
        }
    }
}

/// The control plane of the simulated cluster.
pub(crate) struct Plane {
    pub(crate) front: Arc<Front>,
    pub(crate) store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    config: Config,
    authority: Arc<CertificateAuthority>,
    /// Where nodes get the ranges of their pods from.
    pub(crate) pod_range: ipnet::Ipv4Net,
    seed: u64,
    scheduler: Part,
    controllers: Part,
}

impl Plane {
    pub(crate) fn new(seed: u64, store: Arc<dyn Store>, clock: Arc<dyn Clock>, directory: &Path) -> Result<Self> {
        let authority = CertificateAuthority::load_or_create(directory, "ca", clock.now())?;
        let identity = authority.server_in(directory, "server", &["127.0.0.1".into()], clock.now())?;
        let tls = pintle_pki::server_config(&identity, ClientCertificates::Optional(authority.certificate_pem()))?;
        let key = Arc::new(SigningKey::load_or_create(directory, "service-account")?);
        let nowhere = ([127, 0, 0, 1], 6443).into();
        let config = Config::new(nowhere, [192, 0, 2, 1].into(), tls, authority.certificate_pem().to_owned(), key);
        let front = Arc::new(Front::default());
        let part = |name: &str, who: &str| Part {
            link: Link::new(Arc::clone(&front), User::new(who, &[]), Chance::of(seed, name)),
            running: None,
        };
        Ok(Self {
            scheduler: part("scheduler", "system:kube-scheduler"),
            controllers: part("controllers", MANAGER),
            front,
            store,
            clock,
            config,
            authority: Arc::new(authority),
            pod_range: ipnet::Ipv4Net::new_assert([10, 42, 0, 0].into(), 16),
            seed,
        })
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// A link for somebody else.
    pub(crate) fn link(&self, user: User, name: &str) -> Arc<Link> {
        Link::new(Arc::clone(&self.front), user, Chance::of(self.seed, name))
    }

    /// Measures the requests of the scheduler and the controllers.
    pub(crate) fn set_meter(&self, meter: &Arc<Meter>) {
        self.scheduler.link.set_meter(Arc::clone(meter));
        self.controllers.link.set_meter(Arc::clone(meter));
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.scheduler.link.set_weather(weather);
        self.controllers.link.set_weather(weather);
    }

    pub(crate) async fn start_server(&self) -> Result<()> {
        let registry =
            Registry::open(Arc::clone(&self.store), Table::builtin(), self.clock(), Options::default()).await?;
        let server = Server::new(self.config.clone(), registry, self.clock());
        let stop = CancellationToken::new();
        server.start(stop.clone()).await?;
        *self.front.0.lock() = Some((server, stop));
        Ok(())
    }

    /// Ends the server as if it was killed; requests under way get no answer.
    pub(crate) fn end_server(&self) {
        if let Some((_, stop)) = self.front.0.lock().take() {
            stop.cancel();
        }
    }

    /// Starts the scheduler, in place of the one that runs.
    pub(crate) async fn restart_scheduler(&mut self) {
        self.scheduler.end().await;
        let stop = CancellationToken::new();
        let client = self.scheduler.link.client("kube-scheduler");
        let config = pintle_scheduler::Config {
            informers: Informers::new(client.clone(), stop.clone()),
            client,
            clock: self.clock(),
            seed: self.seed,
            configuration: Arc::default(),
            metrics: pintle_scheduler::Metrics::new(&Default::default()),
        };
        let mut tasks = JoinSet::new();
        let token = stop.clone();
        tasks.spawn(async move {
            // Nothing but its token ends it.
            let _ = pintle_scheduler::run(config, token).await;
        });
        self.scheduler.running = Some((stop, tasks));
    }

    /// Starts the controllers, in place of those that run.
    pub(crate) async fn restart_controllers(&mut self) {
        self.controllers.end().await;
        let stop = CancellationToken::new();
        let link = Arc::clone(&self.controllers.link);
        let config = pintle_controllers::Config {
            informers: Informers::new(link.client("kube-controller-manager"), stop.clone()),
            clients: Arc::new(move |name: &str| {
                let user = match name {
                    "tokens-controller" => User::new(MANAGER, &[]),
                    name => User::service_account("kube-system", name),
                };
                link.client_as(user, &format!("kube-controller-manager/{name}"))
            }),
            clock: self.clock(),
            nodes: pintle_controllers::NodeSettings::default(),
            autoscaling: pintle_controllers::AutoscalerSettings::default(),
            pod_ranges: vec![self.pod_range.into()],
            authority: Arc::clone(&self.authority),
            issue_token: Arc::new(|_, _| Err("the simulator makes no lasting tokens".into())),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(pintle_controllers::run(config, stop.clone()));
        self.controllers.running = Some((stop, tasks));
    }

    pub(crate) async fn end_scheduler(&mut self) {
        self.scheduler.end().await;
    }

    pub(crate) async fn end_controllers(&mut self) {
        self.controllers.end().await;
    }
}
