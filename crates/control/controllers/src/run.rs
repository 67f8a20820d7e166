//! Starts all controllers, each with its own identity.

use crate::context::Context;
use crate::{
    attach, bootstrap, certificates, cronjob, daemonset, deployment, devicetaint, disruption, endpoints, ephemeral,
    expansion, garbage, hpa, job, loadbalancer, migration, namespace, node, nodeipam, nodettl, podgc, protection,
    provisioner, replicaset, resourceclaim, resourcequota, serviceaccount, servicecidr, statefulset, ttl, volume,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use pintle_client::Client;
use pintle_clock::Clock;
use pintle_informer::{Informers, Recorder};
use pintle_pki::CertificateAuthority;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What the controllers need.
#[derive(Clone)]
pub struct Config {
    /// The client of one controller, by its name: `deployment-controller` acts as
    /// `system:serviceaccount:kube-system:deployment-controller`.
    pub clients: Arc<dyn Fn(&str) -> Client + Send + Sync>,
    /// The informers of all controllers; their client must be able to list and watch everything.
    pub informers: Informers,
    pub clock: Arc<dyn Clock>,
    /// When nodes count as silent, and how fast pods leave them.
    pub nodes: node::Settings,
    /// How autoscalers work that say nothing else.
    pub autoscaling: hpa::Settings,
    /// The addresses of all pods, of which every node gets a share.
    pub pod_ranges: Vec<ipnet::IpNet>,
    /// Its certificate is what pods trust the API server by; the built-in signers of certificate requests are it.
    pub authority: Arc<CertificateAuthority>,
    /// Makes the tokens that secrets of accounts hold.
    pub issue_token: serviceaccount::Issue,
}

pub(crate) type Start = fn(Context) -> BoxFuture<'static, ()>;

/// Each controller's name, which is that of its service account, and how it starts.
const CONTROLLERS: &[(&str, Start)] = &[
    ("deployment-controller", |context| deployment::run(context).boxed()),
    ("replicaset-controller", |context| replicaset::run::<replicaset::RsSets>(context).boxed()),
    ("replication-controller", |context| replicaset::run::<replicaset::RcSets>(context).boxed()),
    ("endpointslice-controller", |context| endpoints::run(context).boxed()),
    ("endpoint-controller", |context| endpoints::run_legacy(context).boxed()),
    ("endpointslicemirroring-controller", |context| endpoints::run_mirror(context).boxed()),
    ("ephemeral-volume-controller", |context| ephemeral::run(context).boxed()),
    // Upstream's role of the migrator is there with its feature gate only; the collector's allows what it does.
    ("generic-garbage-collector", |context| migration::run(context).boxed()),
    ("namespace-controller", |context| namespace::run(context).boxed()),
    ("generic-garbage-collector", |context| garbage::run(context).boxed()),
    ("statefulset-controller", |context| statefulset::run(context).boxed()),
    ("daemon-set-controller", |context| daemonset::run(context).boxed()),
    ("cronjob-controller", |context| cronjob::run(context).boxed()),
    ("disruption-controller", |context| disruption::run(context).boxed()),
    ("job-controller", |context| job::run(context).boxed()),
    ("resource-claim-controller", |context| resourceclaim::run(context).boxed()),
    ("resourcequota-controller", |context| resourcequota::run(context).boxed()),
    ("ttl-after-finished-controller", |context| ttl::run(context).boxed()),
    ("node-controller", |context| node::run_eviction(context).boxed()),
    ("pod-garbage-collector", |context| podgc::run(context).boxed()),
    ("ttl-controller", |context| nodettl::run(context).boxed()),
    ("pvc-protection-controller", |context| protection::run_claims(context).boxed()),
    ("pv-protection-controller", |context| protection::run_volumes(context).boxed()),
    ("volumeattributesclass-protection-controller", |context| protection::run_classes(context).boxed()),
    ("service-controller", |context| loadbalancer::run(context).boxed()),
    ("persistent-volume-binder", |context| volume::run(context).boxed()),
    ("attachdetach-controller", |context| attach::run(context).boxed()),
    ("expand-controller", |context| expansion::run(context).boxed()),
    ("local-path-provisioner", |context| provisioner::run(context).boxed()),
    ("service-cidrs-controller", |context| servicecidr::run(context).boxed()),
    ("bootstrap-signer", |context| bootstrap::run_signer(context).boxed()),
    ("token-cleaner", |context| bootstrap::run_cleaner(context).boxed()),
    ("legacy-service-account-token-cleaner", |context| serviceaccount::run_cleaner(context).boxed()),
    ("service-account-controller", |context| serviceaccount::run_accounts(context).boxed()),
];

/// Runs all controllers until `stop`.
pub async fn run(config: Config, stop: CancellationToken) {
    let mut running = tokio::task::JoinSet::new();
    for (name, start) in CONTROLLERS {
        running.spawn(start(context(&config, name, &stop)));
    }
    running.spawn(node::run(context(&config, "node-controller", &stop), config.nodes));
    running.spawn(nodeipam::run(context(&config, "node-controller", &stop), config.pod_ranges.clone()));
    // Upstream's role for the status of rules is there with its feature gate only; the collector's allows it.
    let rules = (config.clients)("generic-garbage-collector");
    running.spawn(devicetaint::run(context(&config, "device-taint-eviction-controller", &stop), rules));
    running.spawn(hpa::run(context(&config, "horizontal-pod-autoscaler", &stop), config.autoscaling));
    let root_ca = config.authority.certificate_pem().to_owned();
    let tokens = serviceaccount::run_tokens(
        context(&config, "tokens-controller", &stop),
        root_ca.clone(),
        config.issue_token.clone(),
    );
    running.spawn(tokens);
    running.spawn(serviceaccount::run_root_ca(context(&config, "root-ca-cert-publisher", &stop), root_ca));
    running.spawn(certificates::run(context(&config, "certificate-controller", &stop), config.authority));
    while let Some(ended) = running.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            tracing::error!(%error, "a controller ended early");
        }
    }
}

fn context(config: &Config, name: &str, stop: &CancellationToken) -> Context {
    let client = (config.clients)(name);
    Context {
        recorder: Recorder::with_clock(client.clone(), name, "", config.clock.clone()),
        client,
        informers: config.informers.clone(),
        clock: config.clock.clone(),
        stop: stop.clone(),
    }
}
