//! The table of resources: looked up by the parts of a path or by kind, listed in the order of discovery.

use crate::{def::ResourceDef, rows};
use std::{cmp::Reverse, collections::HashMap, sync::Arc};

/// All resources that a server serves. Changes make a new table that shares its definitions with the old one.
#[derive(Clone, Default)]
pub struct Table {
    /// In the order of discovery: group, version, then name.
    defs: Vec<Arc<ResourceDef>>,
    by_resource: HashMap<String, Vec<Arc<ResourceDef>>>,
    by_kind: HashMap<String, Vec<Arc<ResourceDef>>>,
}

/// A group with its versions, the preferred one first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupVersions {
    pub group: String,
    pub versions: Vec<String>,
}

impl Table {
    /// Every built-in resource of Kubernetes v1.36.
    pub fn builtin() -> Arc<Table> {
        Arc::new(Self::of(rows::builtin()))
    }

    fn of(mut defs: Vec<Arc<ResourceDef>>) -> Self {
        defs.sort_by_cached_key(|def| {
            (group_rank(&def.group), def.group.clone(), Reverse(version_rank(&def.version)), def.resource.clone())
        });
        let mut table = Self::default();
        for def in &defs {
            table.by_resource.entry(def.resource.clone()).or_default().push(def.clone());
            table.by_kind.entry(def.kind.clone()).or_default().push(def.clone());
        }
        table.defs = defs;
        table
    }

    /// This table and more definitions; those of the same group, version and resource are replaced.
    pub fn with(&self, more: impl IntoIterator<Item = ResourceDef>) -> Table {
        let more: Vec<_> = more.into_iter().map(Arc::new).collect();
        let same =
            |a: &ResourceDef, b: &ResourceDef| a.resource == b.resource && a.group == b.group && a.version == b.version;
        let mut defs: Vec<_> = self.defs.iter().filter(|def| !more.iter().any(|new| same(def, new))).cloned().collect();
        defs.extend(more);
        Self::of(defs)
    }

    /// This table without any version of a resource.
    pub fn without(&self, group: &str, resource: &str) -> Table {
        let keep = |def: &&Arc<ResourceDef>| !(def.group == group && def.resource == resource);
        Self::of(self.defs.iter().filter(keep).cloned().collect())
    }

    /// The resource at `/apis/<group>/<version>/…/<resource>`.
    pub fn get(&self, group: &str, version: &str, resource: &str) -> Option<&Arc<ResourceDef>> {
        self.by_resource.get(resource)?.iter().find(|def| def.group == group && def.version == version)
    }

    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<ResourceDef>> {
        self.by_kind.get(kind)?.iter().find(|def| def.group == group && def.version == version)
    }

    /// The preferred version's definition of a resource.
    pub fn preferred(&self, group: &str, resource: &str) -> Option<&Arc<ResourceDef>> {
        self.by_resource.get(resource)?.iter().find(|def| def.group == group)
    }

    /// The definition in whose form objects are stored.
    pub fn storage_def(&self, def: &ResourceDef) -> Option<&Arc<ResourceDef>> {
        self.get(&def.storage.group, &def.storage.version, &def.storage.resource)
    }

    /// All definitions in the order of discovery.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ResourceDef>> {
        self.defs.iter()
    }

    /// The resources of one version in the order of their names.
    pub fn of_version<'a>(&'a self, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Arc<ResourceDef>> {
        self.defs.iter().filter(move |def| def.group == group && def.version == version)
    }

    /// The groups in the order of discovery (the core group, named "", first) with their versions.
    pub fn groups(&self) -> Vec<GroupVersions> {
        let mut groups: Vec<GroupVersions> = Vec::new();
        for def in &self.defs {
            if groups.last().is_none_or(|last| last.group != def.group) {
                groups.push(GroupVersions { group: def.group.clone(), versions: Vec::new() });
            }
            if let Some(last) = groups.last_mut()
                && last.versions.last() != Some(&def.version)
            {
                last.versions.push(def.version.clone());
            }
        }
        groups
    }
}

/// Built-in groups come in upstream's order, others after them by name.
fn group_rank(group: &str) -> usize {
    const ORDER: &[&str] = &[
        "",
        "apiregistration.k8s.io",
        "apps",
        "events.k8s.io",
        "authentication.k8s.io",
        "authorization.k8s.io",
        "autoscaling",
        "batch",
        "certificates.k8s.io",
        "networking.k8s.io",
        "policy",
        "rbac.authorization.k8s.io",
        "storage.k8s.io",
        "admissionregistration.k8s.io",
        "apiextensions.k8s.io",
        "scheduling.k8s.io",
        "coordination.k8s.io",
        "node.k8s.io",
        "discovery.k8s.io",
        "resource.k8s.io",
        "flowcontrol.apiserver.k8s.io",
        "internal.apiserver.k8s.io",
        "storagemigration.k8s.io",
    ];
    ORDER.iter().position(|known| *known == group).unwrap_or(ORDER.len())
}

/// Greater is preferred: stable over beta over alpha, then the greater number; other texts come last, by name.
pub fn version_rank(version: &str) -> (u8, u32, u32, Reverse<String>) {
    let unknown = || (0, 0, 0, Reverse(version.to_owned()));
    let Some(rest) = version.strip_prefix('v') else { return unknown() };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, stage) = rest.split_at(digits);
    let Ok(major) = major.parse::<u32>() else { return unknown() };
    let (rank, minor) = match stage {
        "" => return (3, major, 0, Reverse(String::new())),
        _ if stage.starts_with("beta") => (2, &stage[4..]),
        _ if stage.starts_with("alpha") => (1, &stage[5..]),
        _ => return unknown(),
    };
    match minor.parse::<u32>() {
        Ok(minor) => (rank, major, minor, Reverse(String::new())),
        Err(_) => unknown(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_rank_stable_first() {
        let mut versions = ["v1alpha3", "foo", "v1", "v10beta1", "v2", "v1beta2", "v1beta1", "bar"];
        versions.sort_by_key(|version| Reverse(version_rank(version)));
        assert_eq!(versions, ["v2", "v1", "v10beta1", "v1beta2", "v1beta1", "v1alpha3", "bar", "foo"]);
    }

    #[test]
    fn builtin_resources_are_found_and_ordered() {
        let table = Table::builtin();
        let pods = table.get("", "v1", "pods").expect("pods");
        assert_eq!((pods.kind.as_str(), pods.namespaced), ("Pod", true));
        assert!(table.by_kind("apps", "v1", "Deployment").is_some());
        assert!(table.get("apps", "v1beta1", "deployments").is_none());
        let groups = table.groups();
        assert_eq!(groups[0].group, "");
        assert_eq!(groups[2].group, "apps");
        let autoscaling = groups.iter().find(|group| group.group == "autoscaling").expect("autoscaling");
        assert_eq!(autoscaling.versions, ["v2", "v1"]);
        assert_eq!(groups.len(), 23);
    }

    #[test]
    fn storage_version_hashes_are_upstreams() {
        let table = Table::builtin();
        let hash =
            |group, version, resource| table.get(group, version, resource).map(|d| d.storage.version_hash.clone());
        assert_eq!(hash("", "v1", "pods").as_deref(), Some("xPOwRZ+Yhw8="));
        assert_eq!(hash("autoscaling", "v1", "horizontalpodautoscalers").as_deref(), Some("qwQve8ut294="));
        assert_eq!(hash("events.k8s.io", "v1", "events").as_deref(), Some("r2yiGXH7wu8="));
        assert_eq!(hash("apiextensions.k8s.io", "v1", "customresourcedefinitions").as_deref(), Some("jfWCUB31mvA="));
    }

    #[test]
    fn custom_resources_come_and_go() {
        let table = Table::builtin();
        let mut widget = ResourceDef::clone(table.get("apps", "v1", "deployments").expect("deployments"));
        widget.group = "example.com".into();
        widget.resource = "widgets".into();
        let more = table.with([widget]);
        assert!(more.get("example.com", "v1", "widgets").is_some());
        assert_eq!(more.groups().last().map(|group| group.group.clone()).as_deref(), Some("example.com"));
        assert!(more.without("example.com", "widgets").get("example.com", "v1", "widgets").is_none());
        assert!(table.get("example.com", "v1", "widgets").is_none());
    }

    #[test]
    fn every_version_finds_its_storage_definition() {
        let table = Table::builtin();
        for def in table.iter() {
            assert!(table.storage_def(def).is_some(), "{} {}", def.api_version(), def.resource);
        }
    }
}
