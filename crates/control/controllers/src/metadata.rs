//! Objects of any kind by their metadata alone.

use pintle_client::{Client, ClientError, ListOptions, unless_missing};
use pintle_types::OwnerReference;
use serde::Deserialize;

/// Asks for lists of metadata; a server that can't send those sends whole objects.
pub const LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
/// Asks for the metadata of single objects and for watches.
pub const OBJECT: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/// What an object's metadata says of its life.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub resource_version: String,
    pub deletion_timestamp: Option<String>,
    pub finalizers: Vec<String>,
    pub owner_references: Vec<OwnerReference>,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
}

impl Metadata {
    /// Reads the metadata out of an object's bytes.
    pub fn decode(object: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(serde_json::from_slice::<Object>(object)?.metadata)
    }

    /// Reads the metadata of the object at a path; nothing when there is none.
    pub async fn get(client: &Client, path: &str) -> Result<Option<Self>, ClientError> {
        let found = unless_missing(client.get_path(path, OBJECT).await)?;
        Ok(found.map(|body| Self::decode(&body)).transpose()?)
    }

    /// Reads the metadata of a whole collection.
    pub async fn list(client: &Client, path: &str) -> Result<Vec<Self>, ClientError> {
        let (mut all, mut token) = (Vec::new(), String::new());
        loop {
            let page = client.list_page(path, &ListOptions::default(), &token, LIST).await?;
            for item in &page.items {
                all.push(Self::decode(item)?);
            }
            token = page.continue_token;
            if token.is_empty() {
                return Ok(all);
            }
        }
    }

    pub fn has_finalizer(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|known| known == finalizer)
    }
}
