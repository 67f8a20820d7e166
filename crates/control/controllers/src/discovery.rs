//! Asks the API server which resources there are.

use pintle_client::{Client, ClientError, resource_path};
use pintle_types::GroupVersion;
use serde::Deserialize;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// A resource in the version that its group prefers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Resource {
    pub group: String,
    pub version: String,
    /// The plural name.
    pub resource: String,
    pub kind: String,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

impl Resource {
    pub fn can(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.verbs.iter().any(|known| known == verb))
    }

    /// The path of the collection (empty name) or of an object.
    pub fn path(&self, namespace: &str, name: &str) -> String {
        let namespace = if self.namespaced { namespace } else { "" };
        resource_path(&self.group, &self.version, &self.resource, namespace, name, "")
    }
}

/// All resources of all groups, and the groups whose resources could not be had.
#[derive(Debug, Default)]
pub struct Discovered {
    pub resources: Vec<Resource>,
    /// `group/version: why`.
    pub failed: Vec<String>,
}

/// Reads the discovery documents: in one piece for all groups where the server can, else group by group.
pub async fn discover(client: &Client) -> Result<Discovered, ClientError> {
    let mut found = Discovered::default();
    for root in ["/api", "/apis"] {
        let body = client.get_path(root, AGGREGATED).await?;
        let document: Document = serde_json::from_slice(&body)?;
        for group in document.items {
            found.add_group(group);
        }
        let plain = document.versions.into_iter().map(|version| (format!("/api/{version}"), version));
        let grouped = document.groups.into_iter().map(|group| {
            let preferred = group.preferred_version.group_version;
            (format!("/apis/{preferred}"), preferred)
        });
        for (path, version) in plain.chain(grouped) {
            match client.get_path(&path, "application/json").await {
                Ok(body) => found.add_plain(&version, serde_json::from_slice(&body)?),
                Err(error) => found.failed.push(format!("{version}: {error}")),
            }
        }
    }
    Ok(found)
}

impl Discovered {
    fn add_group(&mut self, group: Group) {
        let name = group.metadata.name;
        let Some(version) = group.versions.into_iter().next() else { return };
        if version.freshness.as_deref() == Some("Stale") {
            self.failed.push(format!("{name}/{}: stale GroupVersion discovery", version.version));
        }
        self.resources.extend(version.resources.into_iter().map(|resource| Resource {
            group: name.clone(),
            version: version.version.clone(),
            resource: resource.resource,
            kind: resource.response_kind.map(|kind| kind.kind).unwrap_or_default(),
            namespaced: resource.scope == "Namespaced",
            verbs: resource.verbs,
        }));
    }

    fn add_plain(&mut self, version: &str, list: PlainList) {
        let Some(version) = GroupVersion::parse(version) else { return };
        let whole = list.resources.into_iter().filter(|resource| !resource.name.contains('/'));
        self.resources.extend(whole.map(|resource| Resource {
            group: version.group.clone(),
            version: version.version.clone(),
            resource: resource.name,
            kind: resource.kind,
            namespaced: resource.namespaced,
            verbs: resource.verbs,
        }));
    }
}

/// The answer of a root, in either form.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Document {
    items: Vec<Group>,
    versions: Vec<String>,
    groups: Vec<PlainGroup>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: Name,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Default, Deserialize)]
struct Name {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    resources: Vec<GroupResource>,
    #[serde(default)]
    freshness: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupResource {
    resource: String,
    #[serde(default)]
    response_kind: Option<ResponseKind>,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    verbs: Vec<String>,
}

#[derive(Deserialize)]
struct ResponseKind {
    #[serde(default)]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PlainGroup {
    preferred_version: PreferredVersion,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PreferredVersion {
    group_version: String,
}

#[derive(Deserialize)]
struct PlainList {
    resources: Vec<PlainResource>,
}

#[derive(Deserialize)]
struct PlainResource {
    name: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
}
