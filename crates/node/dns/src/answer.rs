//! Decides what a name is: a pure function from a question and the cluster's objects.

use crate::cluster::{Objects, cluster_addresses, service_of};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use pintle_types::k8s::api::core::v1::{Service, ServiceSpec};
use pintle_types::k8s::api::discovery::v1::{Endpoint, EndpointSlice};
use pintle_types::{Kind, ObjectKey};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The version of the specification that these names follow.
const SCHEMA_VERSION: &str = "1.1.0";
const SCHEMA_TTL: u32 = 28_800;
/// The weights of a name's SRV records add up to about this.
const WEIGHTS: usize = 100;
/// An alias can lead to an alias; more than this many are a circle.
const MAX_ALIASES: usize = 8;

/// The zone that is answered here.
#[derive(Clone, Debug)]
pub(crate) struct Zone {
    /// With its final dot, in lower case.
    pub(crate) name: Name,
    /// How long an answer may be kept, in seconds.
    pub(crate) ttl: u32,
    /// Addresses of this server, for those who ask for the zone's name server.
    pub(crate) servers: Vec<IpAddr>,
    /// Of the SOA record; the time the server started, in seconds since 1970.
    pub(crate) serial: u32,
}

/// The records of an answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) code: Option<ResponseCode>,
    pub(crate) answers: Vec<Record>,
    pub(crate) authority: Vec<Record>,
    pub(crate) additionals: Vec<Record>,
}

/// What to do about a question.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Answer(Answer),
    /// Not a name of the cluster: upstream may know.
    Forward,
    /// An alias of a name outside the cluster, whose records are to be added.
    Chase {
        aliases: Vec<Record>,
        target: Name,
    },
}

/// Answers a question of class IN.
pub(crate) fn resolve(zone: &Zone, objects: &dyn Objects, name: &Name, kind: RecordType) -> Outcome {
    if zone.name.zone_of(name) {
        return Query { zone, objects, asked: name, kind }.in_zone();
    }
    if kind == RecordType::PTR
        && let Ok(net) = name.parse_arpa_name()
        && net.prefix_len() == net.max_prefix_len()
    {
        let targets = reverse(zone, objects, net.addr());
        if !targets.is_empty() {
            let records =
                targets.into_iter().map(|target| Record::from_rdata(name.clone(), zone.ttl, RData::PTR(PTR(target))));
            return Outcome::Answer(Answer { answers: records.collect(), ..Answer::default() });
        }
    }
    Outcome::Forward
}

struct Query<'a> {
    zone: &'a Zone,
    objects: &'a dyn Objects,
    asked: &'a Name,
    kind: RecordType,
}

/// Something that a name stands for.
#[derive(Clone, Debug)]
struct Target {
    /// The name that an SRV record gives it.
    name: Name,
    address: IpAddr,
    /// Nothing for an endpoint of a service without ports.
    port: Option<u16>,
}

/// What a service's name stands for.
enum Found {
    Targets(Vec<Target>),
    Alias(Name),
    Nothing,
}

/// Which of a service's targets a name asks for.
#[derive(Default)]
struct Filter {
    endpoint: Option<String>,
    port: Option<String>,
    protocol: Option<String>,
}

impl Query<'_> {
    fn in_zone(&self) -> Outcome {
        if self.kind == RecordType::TXT {
            return self.text();
        }
        let Some(labels) = labels_below(&self.zone.name, self.asked) else {
            return self.nothing(ResponseCode::NXDomain);
        };
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        match labels.as_slice() {
            [] => self.apex(),
            ["svc" | "pod"] => self.nothing(ResponseCode::NoError),
            ["dns"] => self.nothing(ResponseCode::NoError),
            ["ns", "dns"] => self.addresses(&self.zone.servers),
            [namespace, "svc" | "pod"] => self.nothing(self.existence(self.objects.has_namespace(namespace))),
            [pod, namespace, "pod"] => self.pod(pod, namespace),
            [service, namespace, "svc"] => self.service(namespace, service, &Filter::default()),
            [endpoint, service, namespace, "svc"] => {
                let filter = Filter { endpoint: Some((*endpoint).to_owned()), ..Filter::default() };
                self.service(namespace, service, &filter)
            }
            [port, protocol, service, namespace, "svc"] => {
                let plain = |label: &str| Some(label.strip_prefix('_').unwrap_or(label).to_owned());
                let filter = Filter { endpoint: None, port: plain(port), protocol: plain(protocol) };
                self.service(namespace, service, &filter)
            }
            _ => self.nothing(ResponseCode::NXDomain),
        }
    }

    /// The zone itself.
    fn apex(&self) -> Outcome {
        match self.kind {
            RecordType::SOA => self.records(vec![self.soa()]),
            RecordType::NS => {
                let server = server_name(&self.zone.name);
                let record = self.record(RData::NS(NS(server.clone())));
                let additionals =
                    self.zone.servers.iter().map(|address| address_record(&server, self.zone.ttl, *address));
                Outcome::Answer(Answer {
                    answers: vec![record],
                    additionals: additionals.collect(),
                    ..Answer::default()
                })
            }
            _ => self.nothing(ResponseCode::NoError),
        }
    }

    fn text(&self) -> Outcome {
        let labels = labels_below(&self.zone.name, self.asked).unwrap_or_default();
        if labels == ["dns-version"] {
            let text = RData::TXT(TXT::new(vec![SCHEMA_VERSION.into()]));
            return self.records(vec![Record::from_rdata(self.asked.clone(), SCHEMA_TTL, text)]);
        }
        self.nothing(ResponseCode::NoError)
    }

    /// `1-2-3-4.namespace.pod`: the address is in the name; no pod has to have it.
    fn pod(&self, pod: &str, namespace: &str) -> Outcome {
        let dotted = pod.matches('-').count() == 3 && !pod.contains("--");
        let address = pod.replace('-', if dotted { "." } else { ":" }).parse();
        match address {
            Ok(address) if self.objects.has_namespace(namespace) => self.addresses(&[address]),
            _ => self.nothing(ResponseCode::NXDomain),
        }
    }

    fn service(&self, namespace: &str, name: &str, filter: &Filter) -> Outcome {
        match find(self.zone, self.objects, &ObjectKey::new(namespace, name), filter) {
            Found::Nothing => self.nothing(ResponseCode::NXDomain),
            Found::Alias(target) => self.alias(target),
            Found::Targets(targets) if self.kind == RecordType::SRV => self.srv(&targets),
            Found::Targets(targets) => {
                let addresses: Vec<IpAddr> = targets.iter().map(|target| target.address).collect();
                self.addresses(&addresses)
            }
        }
    }

    fn addresses(&self, addresses: &[IpAddr]) -> Outcome {
        let wanted = |address: &&IpAddr| match self.kind {
            RecordType::A => address.is_ipv4(),
            RecordType::AAAA => address.is_ipv6(),
            _ => false,
        };
        let mut seen = BTreeSet::new();
        let fresh = addresses.iter().filter(wanted).filter(|address| seen.insert(**address));
        self.records(fresh.map(|address| address_record(self.asked, self.zone.ttl, *address)).collect())
    }

    fn srv(&self, targets: &[Target]) -> Outcome {
        let weight = u16::try_from(WEIGHTS / targets.len().max(1)).unwrap_or(1).max(1);
        let mut answer = Answer::default();
        let (mut seen, mut named) = (BTreeSet::new(), BTreeSet::new());
        for target in targets {
            let Some(port) = target.port else { continue };
            if seen.insert((target.name.clone(), port)) {
                answer.answers.push(self.record(RData::SRV(SRV::new(0, weight, port, target.name.clone()))));
            }
            if named.insert((target.name.clone(), target.address)) {
                answer.additionals.push(address_record(&target.name, self.zone.ttl, target.address));
            }
        }
        if answer.answers.is_empty() { self.nothing(ResponseCode::NoError) } else { Outcome::Answer(answer) }
    }

    /// An external name; aliases within the cluster are followed here.
    fn alias(&self, target: Name) -> Outcome {
        let mut aliases = vec![self.record(RData::CNAME(CNAME(target.clone())))];
        if !matches!(self.kind, RecordType::A | RecordType::AAAA) {
            return match self.kind {
                RecordType::CNAME => self.records(aliases),
                _ => self.nothing(ResponseCode::NoError),
            };
        }
        let mut next = target;
        while aliases.len() < MAX_ALIASES && self.zone.name.zone_of(&next) {
            match (Query { asked: &next, ..*self }).without_aliases() {
                Ok(records) => {
                    aliases.extend(records);
                    return self.records(aliases);
                }
                Err(further) => {
                    let record = RData::CNAME(CNAME(further.clone()));
                    aliases.push(Record::from_rdata(next, self.zone.ttl, record));
                    next = further;
                }
            }
        }
        if self.zone.name.zone_of(&next) { self.records(aliases) } else { Outcome::Chase { aliases, target: next } }
    }

    /// The records of a name of the cluster, or the name that it is an alias of.
    fn without_aliases(&self) -> Result<Vec<Record>, Name> {
        let labels = labels_below(&self.zone.name, self.asked).unwrap_or_default();
        if let [service, namespace, last] = labels.as_slice()
            && last == "svc"
            && let Found::Alias(further) =
                find(self.zone, self.objects, &ObjectKey::new(namespace, service), &Filter::default())
        {
            return Err(further);
        }
        match self.in_zone() {
            Outcome::Answer(answer) => Ok(answer.answers),
            Outcome::Forward | Outcome::Chase { .. } => Ok(Vec::new()),
        }
    }

    fn existence(&self, exists: bool) -> ResponseCode {
        if exists { ResponseCode::NoError } else { ResponseCode::NXDomain }
    }

    /// These records; without any, the name exists but has none of this type.
    fn records(&self, answers: Vec<Record>) -> Outcome {
        if answers.is_empty() {
            return self.nothing(ResponseCode::NoError);
        }
        Outcome::Answer(Answer { answers, ..Answer::default() })
    }

    /// No record, with the zone's SOA, which says how long that may be believed.
    fn nothing(&self, code: ResponseCode) -> Outcome {
        Outcome::Answer(Answer { code: Some(code), authority: vec![self.soa()], ..Answer::default() })
    }

    fn record(&self, data: RData) -> Record {
        Record::from_rdata(self.asked.clone(), self.zone.ttl, data)
    }

    fn soa(&self) -> Record {
        let zone = &self.zone.name;
        let mailbox = zone.prepend_label("hostmaster").unwrap_or_else(|_| zone.clone());
        let soa = SOA::new(server_name(zone), mailbox, self.zone.serial, 7200, 1800, 86_400, self.zone.ttl);
        Record::from_rdata(zone.clone(), self.zone.ttl, RData::SOA(soa))
    }
}

/// The labels in front of the zone, in lower case; nothing when one of them is not text.
fn labels_below(zone: &Name, name: &Name) -> Option<Vec<String>> {
    let count = usize::from(name.num_labels()).checked_sub(usize::from(zone.num_labels()))?;
    name.iter().take(count).map(|label| std::str::from_utf8(label).ok().map(str::to_ascii_lowercase)).collect()
}

fn server_name(zone: &Name) -> Name {
    zone.prepend_label("dns").and_then(|name| name.prepend_label("ns")).unwrap_or_else(|_| zone.clone())
}

fn address_record(name: &Name, ttl: u32, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    };
    Record::from_rdata(name.clone(), ttl, data)
}

fn find(zone: &Zone, objects: &dyn Objects, key: &ObjectKey, filter: &Filter) -> Found {
    let Some(service) = objects.service(key) else { return Found::Nothing };
    let Some(spec) = &service.spec else { return Found::Nothing };
    if spec.type_.as_deref() == Some("ExternalName") {
        return match (&filter.endpoint, spec.external_name.as_deref().map(absolute)) {
            (None, Some(Some(target))) => Found::Alias(target),
            _ => Found::Nothing,
        };
    }
    let Some(name) = service_name(zone, key) else { return Found::Nothing };
    let targets = if spec.cluster_ip.as_deref() == Some("None") || filter.endpoint.is_some() {
        objects.slices(key).iter().flat_map(|slice| slice_targets(slice, &name, filter)).collect()
    } else {
        cluster_targets(&service, spec, &name, filter)
    };
    if targets.is_empty() { Found::Nothing } else { Found::Targets(targets) }
}

fn cluster_targets(service: &Service, spec: &ServiceSpec, name: &Name, filter: &Filter) -> Vec<Target> {
    let addresses: Vec<IpAddr> = cluster_addresses(service).iter().filter_map(|text| text.parse().ok()).collect();
    let ports = spec.ports.iter().flatten();
    let wanted = ports.filter(|port| filter.takes(port.name.as_deref(), port.protocol.as_deref()));
    wanted
        .flat_map(|port| addresses.iter().map(move |address| (port.port, *address)))
        .map(|(port, address)| Target { name: name.clone(), address, port: u16::try_from(port).ok() })
        .collect()
}

fn slice_targets(slice: &EndpointSlice, service: &Name, filter: &Filter) -> Vec<Target> {
    let ports: Vec<Option<u16>> = match slice.ports.as_deref().unwrap_or_default() {
        [] if filter.port.is_none() => vec![None],
        ports => ports
            .iter()
            .filter(|port| filter.takes(port.name.as_deref(), port.protocol.as_deref()))
            .map(|port| port.port.and_then(|number| u16::try_from(number).ok()))
            .collect(),
    };
    let mut targets = Vec::new();
    for endpoint in slice.endpoints.iter().flatten().filter(|endpoint| is_ready(endpoint)) {
        let Some(label) = endpoint_label(endpoint) else { continue };
        if filter.endpoint.as_ref().is_some_and(|wanted| !wanted.eq_ignore_ascii_case(&label)) {
            continue;
        }
        let Some(address) = endpoint.addresses.first().and_then(|text| text.parse().ok()) else { continue };
        let Ok(name) = service.prepend_label(label.as_str()) else { continue };
        targets.extend(ports.iter().map(|port| Target { name: name.clone(), address, port: *port }));
    }
    targets
}

impl Filter {
    fn takes(&self, name: Option<&str>, protocol: Option<&str>) -> bool {
        let fits = |wanted: &Option<String>, value: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(value))
        };
        fits(&self.port, name.unwrap_or_default()) && fits(&self.protocol, protocol.unwrap_or("TCP"))
    }
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

/// The endpoint's host name, or its address with dashes.
fn endpoint_label(endpoint: &Endpoint) -> Option<String> {
    match endpoint.hostname.as_deref() {
        Some(hostname) if !hostname.is_empty() => Some(hostname.to_owned()),
        _ => endpoint.addresses.first().map(|address| address.replace(['.', ':'], "-")),
    }
}

/// `name.namespace.svc.zone`.
fn service_name(zone: &Zone, key: &ObjectKey) -> Option<Name> {
    let name = zone.name.prepend_label("svc").ok()?;
    name.prepend_label(key.namespace.as_str()).ok()?.prepend_label(key.name.as_str()).ok()
}

fn absolute(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// The names of an address: of the service that has it, or else of its endpoints, those with host names first.
fn reverse(zone: &Zone, objects: &dyn Objects, address: IpAddr) -> Vec<Name> {
    let text = address.to_string();
    if let Some(service) = objects.services_at(&text).first() {
        return service_name(zone, &service.key()).into_iter().collect();
    }
    let (mut with_hostname, mut without) = (BTreeSet::new(), BTreeSet::new());
    for slice in objects.slices_at(&text) {
        let Some(service) = service_of(&slice).and_then(|key| service_name(zone, &key)) else { continue };
        let here = slice.endpoints.iter().flatten().filter(|endpoint| endpoint.addresses.first() == Some(&text));
        for endpoint in here.filter(|endpoint| is_ready(endpoint)) {
            let name = endpoint_label(endpoint).and_then(|label| service.prepend_label(label.as_str()).ok());
            let hostname = endpoint.hostname.as_deref().is_some_and(|hostname| !hostname.is_empty());
            if hostname { &mut with_hostname } else { &mut without }.extend(name);
        }
    }
    if with_hostname.is_empty() { without } else { with_hostname }.into_iter().collect()
}
