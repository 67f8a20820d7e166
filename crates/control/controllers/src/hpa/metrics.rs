//! Evaluates the metrics that an autoscaler names: a number of pods for each, and what its status tells.

use super::plan::{self, Present, Proposal};
use super::source;
use pintle_client::Client;
use pintle_types::k8s::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricSource, ExternalMetricStatus, MetricIdentifier, MetricSpec,
    MetricStatus, MetricTarget, MetricValueStatus, ObjectMetricSource, ObjectMetricStatus, PodsMetricSource,
    PodsMetricStatus, ResourceMetricStatus,
};
use pintle_types::k8s::apimachinery::pkg::api::resource::Quantity as Text;
use pintle_types::k8s::apimachinery::pkg::apis::meta::v1::LabelSelector as Typed;
use pintle_types::quantity::Quantity;
use pintle_types::selector::LabelSelector;

/// What is asked, and about what.
pub struct Question<'a> {
    pub client: &'a Client,
    pub namespace: &'a str,
    /// The selector of the target's pods, as its scale has it.
    pub selector: &'a str,
    pub present: Present<'a>,
    /// As many pods as the target has.
    pub replicas_there: i32,
    /// The plural name and group of the kind of an object that a metric describes.
    pub resource_of: &'a (dyn Fn(&str, &str) -> Option<String> + Sync),
}

/// What one metric comes to.
#[derive(Debug)]
pub struct Answer {
    pub replicas: i32,
    /// What events call the metric.
    pub name: String,
    pub status: MetricStatus,
}

/// Why a metric comes to nothing.
#[derive(Debug)]
pub struct Failure {
    /// Of the event and the condition.
    pub reason: &'static str,
    /// The event's message.
    pub message: String,
    /// With what was being done.
    pub whole: String,
}

impl Failure {
    fn new(reason: &'static str, doing: &str, message: String) -> Self {
        Self { reason, whole: format!("{doing}: {message}"), message }
    }
}

fn milli(target: Option<&Text>) -> Option<i64> {
    target.map(|text| Quantity::from(text).milli())
}

fn text(milli: i64) -> Option<Text> {
    Some(Text(Quantity::from_milli(milli).to_string()))
}

fn average(value: i64) -> MetricValueStatus {
    MetricValueStatus { average_value: text(value), ..MetricValueStatus::default() }
}

fn plain(value: i64) -> MetricValueStatus {
    MetricValueStatus { value: text(value), ..MetricValueStatus::default() }
}

impl Question<'_> {
    /// Evaluates one metric.
    pub async fn evaluate(&self, spec: &MetricSpec) -> Result<Answer, Failure> {
        if let Some(resource) = &spec.resource {
            return self.resource(&resource.name, None, &resource.target).await;
        }
        if let Some(resource) = &spec.container_resource {
            return self.resource(&resource.name, Some(&resource.container), &resource.target).await;
        }
        if let Some(pods) = &spec.pods {
            let doing = "failed to get pods metric value";
            return self.pods(pods).await.map_err(|why| Failure::new("FailedGetPodsMetric", doing, why));
        }
        if let Some(object) = &spec.object {
            let doing = "failed to get object metric value";
            return self.object(object).await.map_err(|why| Failure::new("FailedGetObjectMetric", doing, why));
        }
        if let Some(external) = &spec.external {
            let doing = format!("failed to get {} external metric value", external.metric.name);
            return self.external(external).await.map_err(|why| Failure::new("FailedGetExternalMetric", &doing, why));
        }
        let message = format!("unknown metric source type {:?}", spec.type_);
        Err(Failure { reason: "InvalidMetricSourceType", whole: message.clone(), message })
    }

    async fn resource(&self, name: &str, container: Option<&str>, target: &MetricTarget) -> Result<Answer, Failure> {
        let (reason, doing) = match container {
            None => ("FailedGetResourceMetric", format!("failed to get {name} resource metric value")),
            Some(container) => {
                ("FailedGetContainerResourceMetric", format!("failed to get {container} container metric value"))
            }
        };
        let raw = milli(target.average_value.as_ref());
        let found = match (raw, target.average_utilization) {
            (Some(value), _) => {
                let found = self.resource_average(name, container, value).await;
                found.map_err(|why| format!("failed to get {name} usage: {why}"))
            }
            (None, Some(percent)) => {
                let found = self.resource_utilization(name, container, percent).await;
                found.map_err(|why| format!("failed to get {name} utilization: {why}"))
            }
            (None, None) => {
                Err("invalid resource metric source: neither an average utilization target nor an average value \
                     (usage) target was set"
                    .to_owned())
            }
        };
        let found = found.map_err(|why| Failure::new(reason, &doing, why))?;
        Ok(answer_of_resource(name, container, &found))
    }

    async fn resource_average(&self, name: &str, container: Option<&str>, target: i64) -> Result<Proposal, String> {
        let readings = self.readings(name, container).await?;
        plan::by_average(&self.present, readings, name == "cpu", target)
    }

    async fn resource_utilization(&self, name: &str, container: Option<&str>, target: i32) -> Result<Proposal, String> {
        let readings = self.readings(name, container).await?;
        plan::by_utilization(&self.present, readings, name, container, target)
    }

    async fn readings(&self, name: &str, container: Option<&str>) -> Result<plan::Readings, String> {
        let found = source::of_resource(self.client, self.namespace, self.selector, name, container).await;
        found.map_err(|why| format!("unable to get metrics for resource {name}: {why}"))
    }

    async fn pods(&self, spec: &PodsMetricSource) -> Result<Answer, String> {
        let name = &spec.metric.name;
        let target = milli(spec.target.average_value.as_ref()).unwrap_or_default();
        let selector = selector_text(spec.metric.selector.as_ref());
        let found = source::of_pods(self.client, self.namespace, self.selector, name, &selector).await;
        let readings = found.map_err(|why| format!("unable to get metric {name}: {why}"))?;
        let found = plan::by_average(&self.present, readings, false, target)?;
        let status = PodsMetricStatus { metric: spec.metric.clone(), current: average(found.average) };
        Ok(Answer {
            replicas: found.replicas,
            name: format!("pods metric {name}"),
            status: MetricStatus { type_: "Pods".into(), pods: Some(status), ..MetricStatus::default() },
        })
    }

    async fn object(&self, spec: &ObjectMetricSource) -> Result<Answer, String> {
        let (name, of) = (&spec.metric.name, &spec.described_object);
        let group = of.api_version.as_deref().and_then(|v| v.split_once('/')).map_or("", |(group, _)| group);
        let resource = (self.resource_of)(group, &of.kind)
            .ok_or_else(|| format!("no matches for kind {:?} in group {group:?}", of.kind));
        let selector = selector_text(spec.metric.selector.as_ref());
        let found = match resource {
            Ok(resource) => source::of_object(self.client, self.namespace, &resource, &of.name, name, &selector).await,
            Err(why) => Err(why),
        };
        let value = found
            .map_err(|why| format!("unable to get metric {name}: {} on {} {}/{why}", of.kind, self.namespace, of.name));
        let (replicas, current, title) = match &*spec.target.type_ {
            "Value" => {
                let value = value?;
                let target = milli(spec.target.value.as_ref()).unwrap_or_default();
                let replicas = plan::by_ratio(&self.present, value as f64 / target as f64)?;
                (replicas, plain(value), format!("{} metric {name}", of.kind))
            }
            "AverageValue" => {
                let value = value.map_err(|why| format!("failed to get {name} object metric: {why}"))?;
                let target = milli(spec.target.average_value.as_ref()).unwrap_or_default();
                let (replicas, each) = plan::by_share(self.replicas_there, value, target, self.present.tolerance);
                (replicas, average(each), external_name(&spec.metric))
            }
            _ => {
                return Err(
                    "invalid object metric source: neither a value target nor an average value target was set".into()
                );
            }
        };
        let status = ObjectMetricStatus { described_object: of.clone(), metric: spec.metric.clone(), current };
        let status = MetricStatus { type_: "Object".into(), object: Some(status), ..MetricStatus::default() };
        Ok(Answer { replicas, name: title, status })
    }

    async fn external(&self, spec: &ExternalMetricSource) -> Result<Answer, String> {
        let name = &spec.metric.name;
        let selector = selector_text(spec.metric.selector.as_ref());
        let found = source::external(self.client, self.namespace, name, &selector).await;
        let value = found.map_err(|why| {
            let selector = go_selector(spec.metric.selector.as_ref());
            format!("unable to get external metric {}/{name}/{selector}: {why}", self.namespace)
        });
        let target = (milli(spec.target.average_value.as_ref()), milli(spec.target.value.as_ref()));
        let (replicas, current) = match target {
            (Some(target), _) => {
                let value = value.map_err(|why| format!("failed to get {name} external metric: {why}"))?;
                let (replicas, each) = plan::by_share(self.replicas_there, value, target, self.present.tolerance);
                (replicas, average(each))
            }
            (None, Some(target)) => {
                let doing = |why| format!("failed to get external metric {name}: {why}");
                let value = value.map_err(doing)?;
                let replicas = plan::by_ratio(&self.present, value as f64 / target as f64).map_err(doing)?;
                (replicas, plain(value))
            }
            (None, None) => {
                return Err(
                    "invalid external metric source: neither a value target nor an average value target was set".into(),
                );
            }
        };
        let status = ExternalMetricStatus { metric: spec.metric.clone(), current };
        let status = MetricStatus { type_: "External".into(), external: Some(status), ..MetricStatus::default() };
        Ok(Answer { replicas, name: external_name(&spec.metric), status })
    }
}

fn answer_of_resource(name: &str, container: Option<&str>, found: &Proposal) -> Answer {
    let current = MetricValueStatus { average_utilization: found.utilization, ..average(found.average) };
    let what = if container.is_some() { "container resource" } else { "resource" };
    let title = match found.utilization {
        Some(_) => format!("{name} {what} utilization (percentage of request)"),
        None => format!("{name} {what}"),
    };
    let status = match container {
        None => MetricStatus {
            type_: "Resource".into(),
            resource: Some(ResourceMetricStatus { name: name.into(), current }),
            ..MetricStatus::default()
        },
        Some(container) => MetricStatus {
            type_: "ContainerResource".into(),
            container_resource: Some(ContainerResourceMetricStatus {
                name: name.into(),
                container: container.into(),
                current,
            }),
            ..MetricStatus::default()
        },
    };
    Answer { replicas: found.replicas, name: title, status }
}

fn external_name(metric: &MetricIdentifier) -> String {
    format!("external metric {}({})", metric.name, go_selector(metric.selector.as_ref()))
}

/// A selector as the metrics APIs take it; none is everything.
fn selector_text(selector: Option<&Typed>) -> String {
    selector.map(|selector| LabelSelector::from_typed(Some(selector)).to_string()).unwrap_or_default()
}

/// A selector as upstream's messages show it.
fn go_selector(selector: Option<&Typed>) -> String {
    let Some(selector) = selector else { return "nil".into() };
    let labels = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}: {value},"));
    let expressions = selector.match_expressions.iter().flatten().map(|one| {
        let values = one.values.as_deref().unwrap_or_default().join(" ");
        format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", one.key, one.operator)
    });
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{}}},MatchExpressions:[]LabelSelectorRequirement{{{}}},}}",
        labels.collect::<String>(),
        expressions.collect::<String>()
    )
}
