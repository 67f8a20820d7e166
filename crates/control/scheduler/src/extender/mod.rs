//! Asks servers beside the plugins: upstream's HTTP extenders, with their four verbs.
//!
//! Their words are JSON with Go's names, which are read without regard to case, as Go does. A server that is asked in
//! vain fails the attempt, unless it is `ignorable`.

mod call;
#[cfg(test)]
mod tests;

use crate::pod::PodInfo;
use crate::preemption::Offer;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Container, Node};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The highest score that a server gives is worth as much as a plugin's highest.
const SCALE: i64 = 10;

/// What a configuration says of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) url: String,
    /// Verbs are paths below the address; empty for what the server does not do.
    pub(crate) filter: String,
    pub(crate) prioritize: String,
    pub(crate) preempt: String,
    pub(crate) bind: String,
    pub(crate) weight: i64,
    pub(crate) timeout: Duration,
    /// Whether the names of nodes are enough for it.
    pub(crate) knows_nodes: bool,
    pub(crate) ignorable: bool,
    pub(crate) https: bool,
    pub(crate) tls: Option<Tls>,
    /// It is asked only for pods that want one of these, if there are any.
    pub(crate) managed: Vec<String>,
    /// Those of them that nodes need not have.
    pub(crate) ignored_by_scheduler: Vec<String>,
}

/// Whom to believe and who to be. Data is base64 of PEM, and goes before files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    pub(crate) insecure: bool,
    pub(crate) server_name: String,
    pub(crate) authority_file: String,
    pub(crate) certificate_file: String,
    pub(crate) key_file: String,
    pub(crate) authority: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Why a server gave no answer that is of use.
#[derive(Debug, thiserror::Error)]
pub enum ExtenderError {
    #[error("the extender {url}: {why}")]
    Settings { url: String, why: String },
    #[error("{method} \"{url}\": {why}")]
    Failed { method: &'static str, url: String, why: String },
    #[error("failed {verb} with extender at URL {url}, code {code}")]
    Code { verb: String, url: String, code: u16 },
    #[error("{0}")]
    Said(String),
}

/// One server.
pub(crate) struct Extender {
    pub(crate) settings: Settings,
    endpoint: call::Endpoint,
}

/// What a server leaves of the nodes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Filtered {
    pub(crate) nodes: Vec<String>,
    /// Why others will not do: by name.
    pub(crate) failed: BTreeMap<String, String>,
    /// The same, and it would not help that pods leave.
    pub(crate) unresolvable: BTreeMap<String, String>,
}

/// A field by Go's rule: the exact name, or the same but for case.
fn field<'a>(object: &'a Value, name: &str) -> &'a Value {
    let Some(fields) = object.as_object() else { return &Value::Null };
    let alike = || fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    fields.get(name).or_else(alike).unwrap_or(&Value::Null)
}

fn texts(object: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    object.as_object().into_iter().flatten().map(|(name, why)| (name.clone(), text(why))).collect()
}

fn check_said(answer: &Value) -> Result<(), ExtenderError> {
    match field(answer, "Error").as_str() {
        None | Some("") => Ok(()),
        Some(error) => Err(ExtenderError::Said(error.to_owned())),
    }
}

impl Extender {
    pub(crate) fn new(settings: Settings) -> Result<Self, ExtenderError> {
        let endpoint = call::Endpoint::new(&settings)?;
        Ok(Self { settings, endpoint })
    }

    /// Whether the pod is any of its business.
    pub(crate) fn cares_for(&self, pod: &PodInfo) -> bool {
        let managed = &self.settings.managed;
        let names = |container: &Container| {
            let resources = container.resources.as_ref();
            let maps = resources.into_iter().flat_map(|r| [r.requests.as_ref(), r.limits.as_ref()]);
            maps.flatten().any(|map| map.keys().any(|name| managed.contains(name)))
        };
        let spec = pod.spec();
        managed.is_empty() || spec.containers.iter().chain(spec.init_containers.iter().flatten()).any(names)
    }

    fn about(&self, pod: &PodInfo, nodes: &[Arc<Node>]) -> Value {
        let mut out = Map::new();
        out.insert("Pod".into(), pod.pod.to_value());
        if self.settings.knows_nodes {
            out.insert("Nodes".into(), Value::Null);
            out.insert("NodeNames".into(), nodes.iter().map(|node| json!(node.name())).collect());
        } else {
            let items: Vec<Value> = nodes.iter().map(|node| node.to_value()).collect();
            out.insert("Nodes".into(), json!({ "metadata": {}, "items": items }));
            out.insert("NodeNames".into(), Value::Null);
        }
        out.into()
    }

    /// Which of the nodes will do.
    pub(crate) async fn filter(&self, pod: &PodInfo, nodes: &[Arc<Node>]) -> Result<Filtered, ExtenderError> {
        let all = || nodes.iter().map(|node| node.name().to_owned()).collect::<Vec<_>>();
        let verb = &self.settings.filter;
        if verb.is_empty() {
            return Ok(Filtered { nodes: all(), ..Filtered::default() });
        }
        let answer = self.endpoint.call(verb, &self.about(pod, nodes)).await?;
        check_said(&answer)?;
        let names: Vec<String> = match field(&answer, "NodeNames").as_array().filter(|_| self.settings.knows_nodes) {
            Some(names) => names.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect(),
            None => {
                let items = field(field(&answer, "Nodes"), "items").as_array();
                let name = |item: &Value| Some(item["metadata"]["name"].as_str()?.to_owned());
                items.into_iter().flatten().filter_map(name).collect()
            }
        };
        let known = all();
        if let Some(stranger) = names.iter().find(|name| !known.contains(name)) {
            let url = &self.settings.url;
            return Err(ExtenderError::Said(format!(
                "extender {url:?} claims a filtered node {stranger:?} which is not found in the input node list"
            )));
        }
        Ok(Filtered {
            nodes: names,
            failed: texts(field(&answer, "FailedNodes")),
            unresolvable: texts(field(&answer, "FailedAndUnresolvableNodes")),
        })
    }

    /// What to add to the scores of nodes, by name.
    pub(crate) async fn prioritize(
        &self,
        pod: &PodInfo,
        nodes: &[Arc<Node>],
    ) -> Result<BTreeMap<String, i64>, ExtenderError> {
        let verb = &self.settings.prioritize;
        if verb.is_empty() {
            return Ok(BTreeMap::new());
        }
        let answer = self.endpoint.call(verb, &self.about(pod, nodes)).await?;
        let score = |item: &Value| {
            let score = field(item, "Score").as_i64()?;
            let weighed = score.saturating_mul(self.settings.weight).saturating_mul(SCALE);
            Some((field(item, "Host").as_str()?.to_owned(), weighed))
        };
        Ok(answer.as_array().into_iter().flatten().filter_map(score).collect())
    }

    /// Which of the offers to make room it leaves, with the victims that it wants.
    pub(crate) async fn preempt(&self, pod: &PodInfo, offers: Vec<Offer>) -> Result<Vec<Offer>, ExtenderError> {
        let brief = self.settings.knows_nodes;
        let victim = |p: &Arc<PodInfo>| if brief { json!({ "UID": p.pod.uid() }) } else { p.pod.to_value() };
        let victims: Map<String, Value> = offers
            .iter()
            .map(|offer| {
                let pods: Vec<Value> = offer.victims.iter().map(victim).collect();
                (offer.node.clone(), json!({ "Pods": pods, "NumPDBViolations": offer.violations }))
            })
            .collect();
        let (whole, meta) = if brief { (Value::Null, victims.into()) } else { (victims.into(), Value::Null) };
        let question = json!({ "Pod": pod.pod.to_value(), "NodeNameToVictims": whole, "NodeNameToMetaVictims": meta });
        let answer = self.endpoint.call(&self.settings.preempt, &question).await?;
        let chosen = field(&answer, "NodeNameToMetaVictims");
        let url = &self.settings.url;
        let mut out = Vec::new();
        for (node, wanted) in chosen.as_object().into_iter().flatten() {
            let Some(offer) = offers.iter().find(|offer| offer.node == *node) else { continue };
            let mut victims = Vec::new();
            for meta in field(wanted, "Pods").as_array().into_iter().flatten() {
                let uid = field(meta, "UID").as_str().unwrap_or_default();
                let found = offer.victims.iter().find(|victim| victim.pod.uid() == uid);
                victims.extend(Some(Arc::clone(found.ok_or_else(|| {
                    ExtenderError::Said(format!(
                        "extender: {url} claims to preempt pod (UID: {uid}) on node: {node}, but the pod is not found \
                         on that node"
                    ))
                })?)));
            }
            if victims.is_empty() {
                return Err(ExtenderError::Said(format!("expected at least one victim pod on node {node:?}")));
            }
            let violations = field(wanted, "NumPDBViolations").as_u64().and_then(|n| usize::try_from(n).ok());
            out.push(Offer { node: node.clone(), victims, violations: violations.unwrap_or(0) });
        }
        Ok(out)
    }

    /// Lets the server bind the pod.
    pub(crate) async fn bind(&self, pod: &PodInfo, node: &str) -> Result<(), ExtenderError> {
        let question = json!({
            "PodName": pod.key.name, "PodNamespace": pod.key.namespace, "PodUID": pod.pod.uid(), "Node": node,
        });
        check_said(&self.endpoint.call(&self.settings.bind, &question).await?)
    }
}
