//! What is done to every write before it is stored, beyond what its kind does: the built-in admission plugins.
//!
//! Mutating ones first, in upstream's order, then those that only judge. Each is one file and one line here.

mod certificate;
mod limits;
mod namespace;
mod node;
mod pod;
mod priority;
mod service_account;
mod storage;

use crate::server::Server;
use async_trait::async_trait;
use pintle_registry::{Admission, Attributes, Operation};
use pintle_types::Status;

/// The plugins, on behalf of one request.
pub(crate) struct Chain<'a> {
    pub server: &'a Server,
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

#[async_trait]
impl Admission for Chain<'_> {
    async fn mutate(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        namespace::lifecycle(self.server, attributes).await?;
        limits::tell(attributes);
        certificate::sign_with_requester(attributes);
        service_account::admit(self.server, attributes).await?;
        node::taint(attributes);
        priority::admit(self.server, attributes).await?;
        pod::default_tolerations(attributes);
        storage::default_class(self.server, attributes).await?;
        node::restrict(attributes)?;
        Ok(())
    }

    async fn validate(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        // A deletion has no object to change: the plugins that judge it do so here.
        if attributes.operation == Operation::Delete {
            namespace::lifecycle(self.server, attributes).await?;
            node::restrict(attributes)?;
        }
        certificate::protect_signer(&self.server.authorizer, attributes)?;
        certificate::restrict_subject(attributes)?;
        service_account::validate(attributes)
    }
}
