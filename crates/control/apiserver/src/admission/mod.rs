//! What is done to every write before it is stored, beyond what its kind does: the built-in admission plugins.
//!
//! Mutating ones first, in upstream's order, then those that only judge. Each is one file and one line here.

mod certificate;
mod classes;
mod namespace;
mod node;
mod pod;
mod policy;
mod priority;
mod roles;
mod service_account;
mod storage;

use crate::follow::{Change, Follower};
use crate::server::Server;
use async_trait::async_trait;
use pintle_admission::policy::{Policies, Reinvocation as PolicyReinvocation};
use pintle_admission::webhook::{Flavor, Reinvocation, Webhooks, World};
use pintle_aggregator::Address;
use pintle_registry::{Admission, Attributes, Operation};
use pintle_types::Status;
use std::sync::Arc;
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

/// What the plugins keep between requests.
pub(crate) struct Plugins {
    pub webhooks: Webhooks,
    pub policies: Policies,
}

impl Plugins {
    /// Nothing is known yet of whom to ask.
    pub fn new(metrics: &pintle_metrics::Registry) -> Self {
        Self { webhooks: Webhooks::new(metrics), policies: Policies::default() }
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

impl Chain<'_> {
    /// The mutating plugins of this server itself, in upstream's order. A second time they change nothing more, unless
    /// somebody else did in between.
    async fn amend(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let registry = &self.server.registry;
        namespace::lifecycle(self.server, attributes).await?;
        certificate::sign_with_requester(attributes);
        pintle_admission::limits::mutate(registry, attributes).await?;
        service_account::admit(self.server, attributes).await?;
        node::restrict(attributes)?;
        node::taint(attributes);
        priority::admit(self.server, attributes).await?;
        pod::default_tolerations(attributes);
        storage::default_class(self.server, attributes).await?;
        classes::runtime(self.server, attributes).await?;
        classes::ingress(self.server, attributes).await
    }

    async fn ask_mutating(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let Plugins { webhooks, policies } = &self.server.plugins;
        let itself = self.address();
        let world = World { registry: &self.server.registry, itself: Some(&itself), deadline: self.deadline, access: self.server };
        let policy_world = policy::world(self.server);
        let (mut state, mut policy_state) = (Reinvocation::default(), PolicyReinvocation::default());
        policies.mutate(&policy_world, attributes, &mut policy_state).await?;
        webhooks.mutate(&world, attributes, &mut state).await?;
        if state.is_wanted() || policy_state.is_wanted() {
            state.begin_second();
            policy_state.begin_second();
            if attributes.operation != Operation::Delete {
                self.amend(attributes).await?;
            }
            policies.mutate(&policy_world, attributes, &mut policy_state).await?;
            webhooks.mutate(&world, attributes, &mut state).await?;
        }
        Ok(())
    }

    /// Where this server listens, for hooks that it answers itself.
    fn address(&self) -> Address {
        Address::Socket((std::net::Ipv4Addr::LOCALHOST, self.server.port()).into())
    }
}

#[async_trait]
impl Admission for Chain<'_> {
    async fn mutate(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        self.amend(attributes).await?;
        self.ask_mutating(attributes).await?;
        roles::forbid_escalation(&self.server.authorizer, attributes).await
    }

    async fn validate(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        // A deletion has no object to change: the plugins that judge it do so here.
        if attributes.operation == Operation::Delete {
            namespace::lifecycle(self.server, attributes).await?;
            node::restrict(attributes)?;
            self.ask_mutating(attributes).await?;
        }
        let registry = &self.server.registry;
        pintle_admission::limits::validate(registry, attributes).await?;
        service_account::validate(attributes)?;
        pintle_admission::pod_security::validate(registry, attributes).await?;
        storage::resize(self.server, attributes).await?;
        certificate::protect_signer(&self.server.authorizer, attributes).await?;
        certificate::restrict_subject(attributes)?;
        self.server.plugins.policies.validate(&policy::world(self.server), attributes).await?;
        let itself = self.address();
        let world = World { registry, itself: Some(&itself), deadline: self.deadline, access: self.server };
        self.server.plugins.webhooks.validate(&world, attributes).await?;
        // Quotas are charged last: what was refused before costs nothing.
        pintle_admission::quota::charge(registry, attributes, self.server.clock.now_seconds().as_second()).await
    }
}
