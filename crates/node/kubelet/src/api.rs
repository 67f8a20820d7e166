//! What the kubelet asks of the API server, as the trait that its pod actors know, and the client behind it.

use async_trait::async_trait;
use pintle_client::{Client, ClientError, DeleteOptions, Patch, PatchOptions, Preconditions};
use pintle_informer::Informer;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{
    ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount,
};
use pintle_types::k8s::api::node::v1::RuntimeClass;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::Notify;

use crate::objects::{Objects, Pins, TrustBundles};

/// An object that a pod refers to, in the pod's namespace if it has one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectRef {
    ConfigMap {
        namespace: String,
        name: String,
    },
    Secret {
        namespace: String,
        name: String,
    },
    /// All of the cluster's: which of them are meant is told by their labels.
    TrustBundles,
}

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    #[error("{0}")]
    NotFound(String),
    /// The object is another one by now, or has moved on.
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Other(String),
}

impl From<ClientError> for ApiError {
    fn from(error: ClientError) -> Self {
        let text = error.to_string();
        if error.is_not_found() {
            Self::NotFound(text)
        } else if error.is_conflict() {
            Self::Conflict(text)
        } else {
            Self::Other(text)
        }
    }
}

/// A token for a service account.
#[derive(Clone, Debug)]
pub struct Token {
    pub text: String,
    pub expires: jiff::Timestamp,
}

/// Which token is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenWish {
    pub namespace: String,
    pub service_account: String,
    pub audience: Option<String>,
    pub expiration_seconds: i64,
    pub pod_name: String,
    pub pod_uid: String,
}

/// The API server, as pods need it.
#[async_trait]
pub trait Api: Send + Sync + 'static {
    /// Patches the status (strategically), and returns the version that the pod has now; 0 when it is not known.
    /// Fails with `Conflict` when the pod has another uid.
    async fn patch_status(&self, namespace: &str, name: &str, patch: Value) -> Result<u64, ApiError>;
    /// Deletes the pod at once, if it still has this uid.
    async fn delete_pod(&self, namespace: &str, name: &str, uid: &str) -> Result<(), ApiError>;
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ApiError>;
    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ApiError>;
    /// The trust bundles of the cluster, by name, for pods that pinned them.
    async fn trust_bundles(&self) -> Result<TrustBundles, ApiError>;
    async fn claim(&self, namespace: &str, name: &str) -> Result<Arc<PersistentVolumeClaim>, ApiError>;
    async fn persistent_volume(&self, name: &str) -> Result<Arc<PersistentVolume>, ApiError>;
    /// What the runtime calls the handler of a RuntimeClass.
    async fn runtime_handler(&self, class: &str) -> Result<String, ApiError>;
    /// Keeps these objects at hand, and wakes the notify when one of them changes, until the result is dropped.
    fn pin(&self, wanted: &BTreeSet<ObjectRef>, wake: &Arc<Notify>) -> Pins;
    async fn token(&self, wish: &TokenWish) -> Result<Token, ApiError>;
    /// The services of a namespace.
    fn services(&self, namespace: &str) -> Vec<Arc<Service>>;
}

/// The API server through a client.
pub struct ClientApi {
    client: Client,
    objects: Objects,
    services: Informer<Service>,
}

impl ClientApi {
    pub fn new(client: Client, services: Informer<Service>) -> Self {
        Self { objects: Objects::new(client.clone()), client, services }
    }
}

#[async_trait]
impl Api for ClientApi {
    async fn patch_status(&self, namespace: &str, name: &str, patch: Value) -> Result<u64, ApiError> {
        let options = PatchOptions::status();
        let pod = self.client.patch::<Pod>(namespace, name, Patch::Strategic(patch), &options).await?;
        Ok(pod.version())
    }

    async fn delete_pod(&self, namespace: &str, name: &str, uid: &str) -> Result<(), ApiError> {
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            preconditions: Preconditions::uid(uid),
            ..Default::default()
        };
        Ok(self.client.delete::<Pod>(namespace, name, &options).await?)
    }

    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ApiError> {
        self.objects.config_map(namespace, name).await
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ApiError> {
        self.objects.secret(namespace, name).await
    }

    async fn trust_bundles(&self) -> Result<TrustBundles, ApiError> {
        self.objects.trust_bundles().await
    }

    async fn claim(&self, namespace: &str, name: &str) -> Result<Arc<PersistentVolumeClaim>, ApiError> {
        Ok(Arc::new(self.client.get(namespace, name).await?))
    }

    async fn persistent_volume(&self, name: &str) -> Result<Arc<PersistentVolume>, ApiError> {
        Ok(Arc::new(self.client.get("", name).await?))
    }

    async fn runtime_handler(&self, class: &str) -> Result<String, ApiError> {
        Ok(self.client.get::<RuntimeClass>("", class).await?.handler)
    }

    fn pin(&self, wanted: &BTreeSet<ObjectRef>, wake: &Arc<Notify>) -> Pins {
        self.objects.pin(wanted, wake)
    }

    async fn token(&self, wish: &TokenWish) -> Result<Token, ApiError> {
        let body = token_request(wish);
        let answer =
            self.client.create_sub::<ServiceAccount>(&wish.namespace, &wish.service_account, "token", &body).await?;
        let field = |name: &str| answer["status"][name].as_str().unwrap_or_default().to_owned();
        let (text, expires) = (field("token"), field("expirationTimestamp"));
        let expires =
            expires.parse().map_err(|_| ApiError::Other(format!("the token's end {expires:?} is no time")))?;
        Ok(Token { text, expires })
    }

    fn services(&self, namespace: &str) -> Vec<Arc<Service>> {
        self.services.in_namespace(namespace)
    }
}

fn token_request(wish: &TokenWish) -> Value {
    let audiences: Vec<&str> = wish.audience.as_deref().filter(|a| !a.is_empty()).into_iter().collect();
    json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "audiences": audiences,
            "expirationSeconds": wish.expiration_seconds,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": wish.pod_name, "uid": wish.pod_uid},
        },
    })
}
