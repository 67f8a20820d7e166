//! What is done to every write before it is stored, beyond what its kind does: the built-in admission plugins.
//!
//! Mutating ones first, in upstream's order, then those that only judge. Each is one file and one line here.

mod certificate;
mod classes;
mod metrics;
mod namespace;
mod node;
mod optional;
mod plugins;
mod pod;
mod policy;
mod priority;
mod roles;
mod service_account;
mod storage;

pub use plugins::{AdmissionSettings, AdmissionSettingsError};

use crate::follow::{Change, Follower};
use crate::server::Server;
use async_trait::async_trait;
use metrics::{Metrics, Step};
use pintle_admission::policy::{Policies, Reinvocation as PolicyReinvocation};
use pintle_admission::webhook::{Flavor, Reinvocation, Webhooks, World};
use pintle_aggregator::Address;
use pintle_auth::User;
use pintle_registry::{Admission, Attributes, Operation};
use pintle_types::Status;
use plugins::Plugin;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// The plugins, on behalf of one request.
pub(crate) struct Chain<'a> {
    pub server: &'a Server,
    /// The request is given up then.
    pub deadline: Option<tokio::time::Instant>,
}

/// Whether a write is of that resource (of the core group), and creates it.
fn creates(attributes: &Attributes<'_>, resource: &str) -> bool {
    attributes.operation == Operation::Create && is_core(attributes, resource)
}

fn is_core(attributes: &Attributes<'_>, resource: &str) -> bool {
    attributes.subresource.is_empty() && attributes.def.group.is_empty() && attributes.def.resource == resource
}

/// A refusal in the words of an admission plugin.
fn forbidden(attributes: &Attributes<'_>, why: &str) -> Status {
    Status::forbidden(&attributes.def.group, &attributes.def.resource, attributes.name, why)
}

/// Who writes, as the authorizer knows users.
fn user_of(attributes: &Attributes<'_>) -> User {
    let from = attributes.user;
    User { name: from.name.clone(), uid: from.uid.clone(), groups: from.groups.clone(), extra: from.extra.clone() }
}

/// What the plugins keep between requests.
pub(crate) struct Plugins {
    pub webhooks: Webhooks,
    pub policies: Policies,
    metrics: Metrics,
}

impl Plugins {
    /// Nothing is known yet of whom to ask.
    pub fn new(metrics: &pintle_metrics::Registry) -> Self {
        Self { webhooks: Webhooks::new(metrics), policies: Policies::default(), metrics: Metrics::new(metrics) }
    }

    /// Follows the configurations of webhooks and policies until `stop`.
    pub async fn start(server: &Arc<Server>, stop: &CancellationToken) -> Result<(), Status> {
        for (resource, flavor) in [
            ("mutatingwebhookconfigurations", Flavor::Mutating),
            ("validatingwebhookconfigurations", Flavor::Validating),
        ] {
            let shared = server.clone();
            let apply = move |change: Change<'_>| match change {
                Change::Set(configuration) => shared.plugins.webhooks.set(flavor, configuration),
                Change::Gone(gone) => {
                    let name = gone["metadata"]["name"].as_str().unwrap_or_default();
                    shared.plugins.webhooks.remove(flavor, name);
                }
            };
            let follower = Follower::load(server, "admissionregistration.k8s.io", resource, apply).await?;
            server.tasks.spawn(follower.run(stop.clone()));
        }
        policy::start(server, stop).await
    }
}

/// Policies and webhooks look at what all other plugins made of the object, so they come last.
fn asks_others(plugin: Plugin) -> bool {
    matches!(plugin, Plugin::MutatingAdmissionPolicy | Plugin::MutatingAdmissionWebhook)
}

impl Chain<'_> {
    fn enabled(&self) -> impl Iterator<Item = Plugin> {
        let settings = &self.server.config.admission;
        Plugin::all().filter(|plugin| settings.is_enabled(*plugin))
    }

    /// The mutating plugins of this server itself. A second time they change nothing more, unless somebody else did in
    /// between.
    async fn amend(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let mut last = Instant::now();
        for plugin in self.enabled().filter(|plugin| !asks_others(*plugin)) {
            let Some(result) = self.amend_by(plugin, attributes).await else { continue };
            last = self.asked(plugin, Step::Admit, attributes, last, &result);
            result?;
        }
        Ok(())
    }

    /// Nothing of a plugin that changes no writes: it is not counted for them, either.
    async fn amend_by(&self, plugin: Plugin, attributes: &mut Attributes<'_>) -> Option<Result<(), Status>> {
        let server = self.server;
        Some(match plugin {
            Plugin::NamespaceLifecycle => namespace::lifecycle(server, attributes).await,
            Plugin::NodeRestriction => node::restrict(server, attributes).await,
            // A deletion has nothing that could be changed.
            _ if attributes.operation == Operation::Delete => return None,
            Plugin::LimitRanger => pintle_admission::limits::mutate(&server.registry, attributes).await,
            Plugin::ServiceAccount => service_account::admit(server, attributes).await,
            Plugin::TaintNodesByCondition => {
                node::taint(attributes);
                Ok(())
            }
            Plugin::AlwaysPullImages => {
                optional::pull_always(attributes);
                Ok(())
            }
            Plugin::Priority => priority::admit(server, attributes).await,
            Plugin::DefaultTolerationSeconds => {
                pod::default_tolerations(attributes);
                Ok(())
            }
            Plugin::ExtendedResourceToleration => {
                optional::tolerate_devices(attributes);
                Ok(())
            }
            Plugin::DefaultStorageClass => storage::default_class(server, attributes).await,
            Plugin::StorageObjectInUseProtection => {
                storage::protect(attributes);
                Ok(())
            }
            Plugin::RuntimeClass => classes::runtime(server, attributes).await,
            Plugin::DefaultIngressClass => classes::ingress(server, attributes).await,
            Plugin::PodTopologyLabels => optional::topology_labels(server, attributes).await,
            Plugin::AlwaysAdmit => Ok(()),
            _ => return None,
        })
    }

    /// Asks policies and webhooks, and goes over everything once more when one of them changed something.
    async fn ask_mutating(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let (mut hooks, mut policies) = (Reinvocation::default(), PolicyReinvocation::default());
        self.ask_once(attributes, &mut hooks, &mut policies).await?;
        if hooks.is_wanted() || policies.is_wanted() {
            hooks.begin_second();
            policies.begin_second();
            self.amend(attributes).await?;
            self.ask_once(attributes, &mut hooks, &mut policies).await?;
        }
        Ok(())
    }

    async fn ask_once(
        &self,
        attributes: &mut Attributes<'_>,
        hooks: &mut Reinvocation,
        policies: &mut PolicyReinvocation,
    ) -> Result<(), Status> {
        let (plugins, settings) = (&self.server.plugins, &self.server.config.admission);
        let mut last = Instant::now();
        if settings.is_enabled(Plugin::MutatingAdmissionPolicy) {
            let result = plugins.policies.mutate(&policy::world(self.server), attributes, policies).await;
            last = self.asked(Plugin::MutatingAdmissionPolicy, Step::Admit, attributes, last, &result);
            result?;
        }
        if settings.is_enabled(Plugin::MutatingAdmissionWebhook) {
            let itself = self.address();
            let result = plugins.webhooks.mutate(&self.world(&itself), attributes, hooks).await;
            self.asked(Plugin::MutatingAdmissionWebhook, Step::Admit, attributes, last, &result);
            result?;
        }
        Ok(())
    }

    async fn judge(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let mut last = Instant::now();
        for plugin in self.enabled() {
            let Some(result) = self.judge_by(plugin, attributes).await else { continue };
            last = self.asked(plugin, Step::Validate, attributes, last, &result);
            result?;
        }
        Ok(())
    }

    /// Nothing of a plugin that judges no writes.
    async fn judge_by(&self, plugin: Plugin, attributes: &mut Attributes<'_>) -> Option<Result<(), Status>> {
        let (server, registry) = (self.server, &*self.server.registry);
        Some(match plugin {
            Plugin::NamespaceExists => optional::namespace_exists(server, attributes).await,
            Plugin::LimitPodHardAntiAffinityTopology => optional::limit_anti_affinity(attributes),
            Plugin::LimitRanger => pintle_admission::limits::validate(registry, attributes).await,
            Plugin::ServiceAccount => service_account::validate(attributes),
            Plugin::PodSecurity => {
                let configuration = &server.config.admission.pod_security;
                pintle_admission::pod_security::validate(configuration, registry, attributes).await
            }
            Plugin::Priority => priority::one_default(server, attributes).await,
            Plugin::PersistentVolumeClaimResize => storage::resize(server, attributes).await,
            Plugin::CertificateApproval => certificate::protect_approval(&server.authorizer, attributes).await,
            Plugin::CertificateSigning => certificate::protect_signing(&server.authorizer, attributes).await,
            Plugin::ClusterTrustBundleAttest => certificate::attest(&server.authorizer, attributes).await,
            Plugin::CertificateSubjectRestriction => certificate::restrict_subject(attributes),
            Plugin::DenyServiceExternalIPs => optional::deny_external_ips(attributes),
            Plugin::ValidatingAdmissionPolicy => {
                server.plugins.policies.validate(&policy::world(server), attributes).await
            }
            Plugin::ValidatingAdmissionWebhook => {
                let itself = self.address();
                server.plugins.webhooks.validate(&self.world(&itself), attributes).await
            }
            // Quotas are charged last: what was refused before costs nothing.
            Plugin::ResourceQuota => {
                let now = server.clock.now_seconds().as_second();
                pintle_admission::quota::charge(registry, attributes, now).await
            }
            Plugin::AlwaysDeny => optional::deny(attributes),
            // What they judge was seen to when they were asked for changes; upstream counts them here, too.
            Plugin::AlwaysAdmit | Plugin::AlwaysPullImages | Plugin::RuntimeClass => Ok(()),
            _ => return None,
        })
    }

    /// Counts what a plugin took since `from`; the time now.
    fn asked(
        &self,
        plugin: Plugin,
        step: Step,
        attributes: &Attributes<'_>,
        from: Instant,
        result: &Result<(), Status>,
    ) -> Instant {
        let now = Instant::now();
        self.server.plugins.metrics.asked(plugin, step, attributes.operation, now - from, result.is_err());
        now
    }

    fn world<'w>(&'w self, itself: &'w Address) -> World<'w> {
        World { registry: &self.server.registry, itself: Some(itself), deadline: self.deadline, access: self.server }
    }

    /// Where this server listens, for hooks that it answers itself.
    fn address(&self) -> Address {
        Address::Socket((std::net::Ipv4Addr::LOCALHOST, self.server.port()).into())
    }

    async fn all_mutating(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        certificate::sign_with_requester(attributes);
        self.amend(attributes).await?;
        self.ask_mutating(attributes).await?;
        roles::forbid_escalation(&self.server.authorizer, attributes).await
    }
}

#[async_trait]
impl Admission for Chain<'_> {
    async fn mutate(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let began = Instant::now();
        let result = self.all_mutating(attributes).await;
        self.server.plugins.metrics.done(Step::Admit, attributes.operation, began.elapsed(), result.is_err());
        result
    }

    async fn validate(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        // The registry asks about deletions only once: those who would change them are asked here.
        if attributes.operation == Operation::Delete {
            self.mutate(attributes).await?;
        }
        let began = Instant::now();
        let result = self.judge(attributes).await;
        self.server.plugins.metrics.done(Step::Validate, attributes.operation, began.elapsed(), result.is_err());
        result
    }
}
