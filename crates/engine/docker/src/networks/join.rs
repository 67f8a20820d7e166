//! Connects containers to networks, and disconnects them.

use super::dns::{self, Found, Names, Resolver};
use super::ports::{self, PortRequest, Serving, Targets};
use super::records::{Joined, Member, Network, Publication};
use super::rules::failed;
use super::{Inner, Kept, Networks, endpoint, links, request, rules};
use crate::containers::{new_id, parse_link};
use crate::error::{DockerError, Result};
use crate::model::{EndpointIpam, EndpointSettings};
use pintle_netlink::conntrack::Conntrack;
use pintle_netlink::namespace;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

/// The most of the machine's resolver configuration that is read.
const MAX_RESOLV_CONF: u64 = 64 << 10;

/// A container that is about to run.
#[derive(Clone, Debug, Default)]
pub struct Attach {
    pub container: String,
    /// Without the leading slash.
    pub name: String,
    pub hostname: String,
    /// Where its network namespace is pinned.
    pub netns: PathBuf,
    /// Networks by name or id, the first one first, each with what is wanted of it.
    pub networks: Vec<(String, EndpointSettings)>,
    pub ports: Vec<PortRequest>,
    /// Servers that its resolver asks; none for those of the host.
    pub resolvers: Vec<IpAddr>,
}

/// What it got.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attached {
    /// By what `networks` called them.
    pub networks: BTreeMap<String, EndpointSettings>,
    pub published: Vec<Publication>,
    /// The container's addresses, in the order of the networks.
    pub addresses: Vec<IpAddr>,
    /// The name server within the namespace, where a network of its own has names.
    pub resolver: Option<IpAddr>,
    /// The host as the container reaches it.
    pub host_gateway: Option<IpAddr>,
}

/// What of a running container lives in this process.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// Kept for their end.
    _resolver: Option<Resolver>,
    _serving: Serving,
}

impl Networks {
    /// Connects a container whose namespace has nothing yet. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When a network is not there, an address or port is taken, or the kernel refuses; then nothing is left behind.
    pub fn attach(self: &Arc<Self>, wanted: &Attach) -> Result<Attached> {
        self.release_all(&wanted.container)?;
        let made = self.attach_steps(wanted);
        if made.is_err()
            && let Err(error) = self.release_all(&wanted.container)
        {
            tracing::warn!(container = %wanted.container, %error, "cannot undo a connection that failed");
        }
        made
    }

    fn attach_steps(self: &Arc<Self>, wanted: &Attach) -> Result<Attached> {
        let member = Member {
            container: wanted.container.clone(),
            name: wanted.name.clone(),
            netns: wanted.netns.clone(),
            resolvers: wanted.resolvers.clone(),
            ..Member::default()
        };
        let mut inner = self.inner.lock();
        inner.members.insert(wanted.container.clone(), member);
        let mut attached = Attached::default();
        for (name, settings) in &wanted.networks {
            let joined = self.join_one(&mut inner, &wanted.container, &wanted.hostname, name, settings)?;
            attached.addresses.extend(joined.v4.iter().chain(&joined.v6).map(|net| net.addr()));
            attached.host_gateway = attached.host_gateway.or_else(|| inner.gateway_of(&joined.network));
            attached.networks.insert(name.clone(), inner.settings(&joined, settings));
        }
        self.route(&inner, &wanted.container)?;
        attached.published = self.publish(&mut inner, &wanted.container, &wanted.ports)?;
        attached.resolver = self.resolve(&mut inner, &wanted.container)?;
        Ok(attached)
    }

    /// Connects a container that runs to one more network. The ports are published through it when they are not yet.
    ///
    /// # Errors
    /// As [`Self::attach`]; 403 when it is connected already.
    pub fn join(
        self: &Arc<Self>,
        container: &str,
        hostname: &str,
        network: &str,
        settings: &EndpointSettings,
        ports: &[PortRequest],
    ) -> Result<EndpointSettings> {
        let mut inner = self.inner.lock();
        if !inner.members.contains_key(container) {
            return Err(DockerError::conflict(format!("container {container} is not running")));
        }
        let joined = self.join_one(&mut inner, container, hostname, network, settings)?;
        let settled = self.route(&inner, container).and_then(|()| {
            if inner.members.get(container).is_some_and(|m| m.published.is_empty()) {
                self.publish(&mut inner, container, ports)?;
            }
            self.resolve(&mut inner, container)
        });
        let filled = inner.settings(&joined, settings);
        drop(inner);
        if let Err(error) = settled {
            self.leave(container, &joined.network)?;
            return Err(error);
        }
        Ok(filled)
    }

    /// Takes a container that runs off a network.
    ///
    /// # Errors
    /// 403 when it is not connected.
    pub fn leave(self: &Arc<Self>, container: &str, network: &str) -> Result<()> {
        let mut inner = self.inner.lock();
        let id = inner.find(network)?;
        let not_connected =
            || DockerError::new(403, format!("container {container} is not connected to the network {network}"));
        let member = inner.members.get_mut(container).ok_or_else(not_connected)?;
        let joined = member.joined.iter().find(|j| j.network == id).cloned().ok_or_else(not_connected)?;
        let netns = member.netns.clone();
        let published = if member.published_by == id { std::mem::take(&mut member.published) } else { Vec::new() };
        inner.withdraw(&published)?;
        drop(inner);
        // It is written down until it is gone: whoever is cut off here finds it.
        links::unplug(&self.host, &joined, &netns)?;
        let mut inner = self.inner.lock();
        if let Some(member) = inner.members.get_mut(container) {
            member.joined.retain(|j| j.network != id);
            self.members.save(container, &*member)?;
        }
        inner.give_back(&joined);
        if !published.is_empty() {
            self.publish_again(&mut inner, container, &published)?;
        }
        self.route(&inner, container)
    }

    /// Ends the connections of a container that has run on which were being made or undone when the last daemon ended:
    /// those to networks that are not `named` any more or not yet, and those that have lost their link. Returns the
    /// networks that it is connected to.
    pub fn settle(self: &Arc<Self>, container: &str, named: &[String]) -> Result<Vec<String>> {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let Some(member) = inner.members.get(container) else { return Ok(named.to_vec()) };
        let (mut whole, mut broken) = (Vec::new(), Vec::new());
        for joined in &member.joined {
            let link = joined.host_interface.as_str();
            let there = link.is_empty() || inner.netlink.link(link).map_err(failed)?.is_some();
            let side = if there && named.contains(&joined.network) { &mut whole } else { &mut broken };
            side.push(joined.network.clone());
        }
        drop(guard);
        broken.iter().try_for_each(|network| self.leave(container, network))?;
        Ok(whole)
    }

    /// Takes everything back that a container has; succeeds when it has nothing.
    pub fn release_all(&self, container: &str) -> Result<()> {
        let Some(member) = self.forget(container)? else { return Ok(()) };
        for joined in &member.joined {
            links::unplug(&self.host, joined, &member.netns)?;
        }
        self.forget_datagrams(&member);
        let mut inner = self.inner.lock();
        member.joined.iter().for_each(|joined| inner.give_back(joined));
        drop(inner);
        self.members.remove(container)
    }

    /// Nothing leads to it any more.
    fn forget(&self, container: &str) -> Result<Option<Member>> {
        let mut inner = self.inner.lock();
        inner.live.remove(container);
        let Some(member) = inner.members.remove(container) else { return Ok(None) };
        inner.withdraw(&member.published)?;
        Ok(Some(member))
    }

    /// A container has another name.
    pub fn rename(&self, container: &str, name: &str) {
        let mut inner = self.inner.lock();
        let Some(member) = inner.members.get_mut(container) else { return };
        let old = std::mem::replace(&mut member.name, name.to_owned());
        for known in member.joined.iter_mut().flat_map(|j| &mut j.names).filter(|known| **known == old) {
            name.clone_into(known);
        }
        if let Err(error) = self.members.save(container, &*member) {
            tracing::warn!(%container, %error, "the new name of a container is not saved");
        }
    }

    /// The ports of a container that runs.
    pub fn published(&self, container: &str) -> Vec<Publication> {
        self.inner.lock().members.get(container).map(|m| m.published.clone()).unwrap_or_default()
    }

    /// Checks what is wanted of a network, before anything is made.
    ///
    /// # Errors
    /// 404 without the network, 400 with all that is wrong.
    pub fn check_settings(&self, network: &str, settings: &EndpointSettings) -> Result<()> {
        let inner = self.inner.lock();
        let id = inner.find(network)?;
        inner.networks.get(&id).map_or(Ok(()), |kept| check(&kept.network, settings))
    }

    fn join_one(
        &self,
        inner: &mut Inner,
        container: &str,
        hostname: &str,
        network: &str,
        settings: &EndpointSettings,
    ) -> Result<Joined> {
        let id = inner.find(network)?;
        let Some(kept) = inner.networks.get_mut(&id) else { return Err(super::not_found(network)) };
        check(&kept.network, settings)?;
        let member = inner.members.get_mut(container).ok_or_else(|| failed("the container has gone"))?;
        if member.joined.iter().any(|j| j.network == id) {
            let message = format!("endpoint with name {} already exists in network {}", member.name, kept.network.name);
            return Err(DockerError::new(403, message));
        }
        let joined = reserve(kept, member, hostname, settings)?;
        // Written down first: whatever happens after, a release finds what to undo.
        member.joined.push(joined.clone());
        self.members.save(container, &*member)?;
        let (network, netns) = (kept.network.clone(), member.netns.clone());
        if network.driver == "host" || network.driver == "null" {
            return Ok(joined);
        }
        if network.is_bridge() {
            self.make_rules_stand(inner)?;
        }
        let netns = namespace::open(&netns).map_err(failed)?;
        let mut raised = inner.networks.get(&id).and_then(|kept| kept.raised);
        let plugged = links::plug(&mut inner.netlink, &mut inner.settings, &network, &joined, &netns, &mut raised);
        if let Some(kept) = inner.networks.get_mut(&id) {
            kept.raised = raised;
        }
        if let Err(error) = plugged {
            if let Some(member) = inner.members.get_mut(container) {
                member.joined.retain(|j| j.network != joined.network);
                self.members.save(container, &*member)?;
            }
            links::unplug(&self.host, &joined, &inner.netns_of(container))?;
            inner.give_back(&joined);
            return Err(error);
        }
        Ok(joined)
    }

    fn route(&self, inner: &Inner, container: &str) -> Result<()> {
        let Some(member) = inner.members.get(container) else { return Ok(()) };
        if member.joined.iter().all(|j| j.gateway_v4.is_none() && j.gateway_v6.is_none()) {
            return Ok(());
        }
        let netns = namespace::open(&member.netns).map_err(failed)?;
        links::route(&member.joined, &inner.names_of(member), &netns)
    }

    fn publish(&self, inner: &mut Inner, container: &str, requests: &[PortRequest]) -> Result<Vec<Publication>> {
        let Some(member) = inner.members.get(container).filter(|_| !requests.is_empty()) else { return Ok(Vec::new()) };
        let names = inner.names_of(member);
        let Some(joined) = links::best(&member.joined, &names, |j| j.gateway_v4.or(j.gateway_v6)).cloned() else {
            return Ok(Vec::new());
        };
        let Some(kept) = inner.networks.get(&joined.network).filter(|kept| kept.network.is_bridge()) else {
            return Ok(Vec::new());
        };
        let binding = request::bridge_options(&kept.network.options)?.binding;
        let targets = Targets { v4: joined.v4.map(|n| n.addr()), v6: joined.v6.map(|n| n.addr()), binding };
        let others: Vec<Publication> = inner.members.values().flat_map(|m| m.published.iter().cloned()).collect();
        let held = ports::hold(&self.host, requests, targets, &others).map_err(|error| {
            let (name, id) = (&member.name, &joined.endpoint_id);
            let what = format!("driver failed programming external connectivity on endpoint {name} ({id})");
            DockerError::new(error.status, format!("failed to set up container networking: {what}: {}", error.message))
        })?;
        let (published, serving) = ports::serve(held)?;
        rules::publish(&mut inner.nft, &published)?;
        inner.live.entry(container.to_owned()).or_default()._serving = serving;
        self.note_ports(inner, container, &published, &joined.network)?;
        Ok(published)
    }

    fn note_ports(&self, inner: &mut Inner, container: &str, published: &[Publication], network: &str) -> Result<()> {
        let Some(member) = inner.members.get_mut(container) else { return Ok(()) };
        member.published = published.to_vec();
        network.clone_into(&mut member.published_by);
        self.members.save(container, &*member)
    }

    /// The network through which the ports led is gone: another one takes them.
    fn publish_again(&self, inner: &mut Inner, container: &str, old: &[Publication]) -> Result<()> {
        let Some(member) = inner.members.get(container) else { return Ok(()) };
        let names = inner.names_of(member);
        let Some(joined) = links::best(&member.joined, &names, |j| j.gateway_v4.or(j.gateway_v6)).cloned() else {
            if let Some(live) = inner.live.get_mut(container) {
                live._serving = Serving::default();
            }
            return Ok(());
        };
        let (v4, v6) = (joined.v4.map(|n| n.addr()), joined.v6.map(|n| n.addr()));
        let moved = old.iter().filter_map(|publication| {
            let target = if publication.is_v6() { v6.or(v4) } else { v4 }?;
            Some(Publication { target, ..publication.clone() })
        });
        let moved: Vec<Publication> = moved.collect();
        if let Some(live) = inner.live.get_mut(container) {
            // The sockets must be free before they are bound again.
            live._serving = Serving::default();
        }
        let (published, serving) = ports::serve(ports::hold_again(&self.host, &moved))?;
        rules::publish(&mut inner.nft, &published)?;
        inner.live.entry(container.to_owned()).or_default()._serving = serving;
        self.note_ports(inner, container, &published, &joined.network)
    }

    /// Opens the resolver when the container is in a network that has names, once.
    fn resolve(self: &Arc<Self>, inner: &mut Inner, container: &str) -> Result<Option<IpAddr>> {
        let Some(member) = inner.members.get(container) else { return Ok(None) };
        let networks = member.joined.iter().filter_map(|j| inner.networks.get(&j.network));
        let has_names = networks.clone().any(|kept| kept.network.is_user_defined());
        if !has_names {
            return Ok(None);
        }
        let open = inner.live.get(container).is_some_and(|live| live._resolver.is_some());
        if !open {
            let netns = namespace::open(&member.netns).map_err(failed)?;
            let names = Neighbours { networks: Arc::downgrade(self), container: container.to_owned() };
            let resolver = dns::open(&netns, Arc::new(names))?;
            inner.live.entry(container.to_owned()).or_default()._resolver = Some(resolver);
        }
        Ok(Some(dns::ADDRESS.into()))
    }

    /// After a restart of the daemon: sockets and tasks of a container that has run on.
    pub(super) fn serve_again(self: &Arc<Self>, container: &str) {
        let mut inner = self.inner.lock();
        let Some(member) = inner.members.get(container) else { return };
        let held = ports::hold_again(&self.host, &member.published);
        let outcome = ports::serve(held).and_then(|(_, serving)| {
            inner.live.entry(container.to_owned()).or_default()._serving = serving;
            self.resolve(&mut inner, container)
        });
        if let Err(error) = outcome {
            tracing::warn!(%container, %error, "a container that has run on is not fully served");
        }
    }

    /// Datagrams of a client that goes on sending must not be led to an address that is about to be somebody else's.
    fn forget_datagrams(&self, member: &Member) {
        let targets: BTreeSet<IpAddr> =
            member.published.iter().filter(|p| p.protocol.number() == 17).map(|p| p.target).collect();
        if targets.is_empty() {
            return;
        }
        let forgotten = Conntrack::in_namespace(self.host.as_fd()).and_then(|mut tracker| {
            tracker.delete_where(|flow| flow.original.protocol == 17 && targets.contains(&flow.reply.source))
        });
        if let Err(error) = forgotten {
            tracing::warn!(%error, "cannot forget tracked datagrams");
        }
    }
}

impl Inner {
    fn withdraw(&mut self, published: &[Publication]) -> Result<()> {
        if !published.is_empty() && rules::withdraw(&mut self.nft, published).is_err() {
            // Somebody may have flushed the table: the next connection puts it back as a whole.
            self.rules_stand = false;
        }
        Ok(())
    }

    fn netns_of(&self, container: &str) -> PathBuf {
        self.members.get(container).map(|m| m.netns.clone()).unwrap_or_default()
    }

    fn give_back(&mut self, joined: &Joined) {
        let Some(kept) = self.networks.get_mut(&joined.network) else { return };
        for address in joined.v4.iter().chain(&joined.v6).map(|net| net.addr()) {
            kept.pools.iter_mut().filter(|p| p.pool.subnet.contains(&address)).for_each(|p| p.give_back(address));
        }
    }

    fn names_of(&self, member: &Member) -> Vec<String> {
        let name = |j: &Joined| self.networks.get(&j.network).map(|kept| kept.network.name.clone()).unwrap_or_default();
        member.joined.iter().map(name).collect()
    }

    fn gateway_of(&self, network: &str) -> Option<IpAddr> {
        let network = &self.networks.get(network)?.network;
        network.is_bridge().then(|| network.pool(false).map(|p| p.gateway)).flatten()
    }

    /// What was wanted, with what it became.
    fn settings(&self, joined: &Joined, wanted: &EndpointSettings) -> EndpointSettings {
        let text = |address: Option<IpAddr>| address.map(|a| a.to_string()).unwrap_or_default();
        let user_defined = self.networks.get(&joined.network).is_some_and(|kept| kept.network.is_user_defined());
        EndpointSettings {
            mac_address: joined.mac.clone(),
            network_id: joined.network.clone(),
            endpoint_id: joined.endpoint_id.clone(),
            gateway: text(joined.gateway_v4),
            ip_address: text(joined.v4.map(|n| n.addr())),
            ip_prefix_len: joined.v4.map_or(0, |n| n.prefix_len()),
            ipv6_gateway: text(joined.gateway_v6),
            global_ipv6_address: text(joined.v6.map(|n| n.addr())),
            global_ipv6_prefix_len: joined.v6.map_or(0, |n| n.prefix_len()),
            dns_names: user_defined.then(|| joined.names.clone()),
            ..wanted.clone()
        }
    }
}

/// What is wanted of a network, in the words of the Engine.
fn check(network: &Network, settings: &EndpointSettings) -> Result<()> {
    let mut errors = Vec::new();
    let wanted = settings.ipam_config.as_ref();
    for text in wanted.map(asked).unwrap_or_default() {
        if network.is_predefined() {
            errors.push("user specified IP address is supported on user defined networks only".to_owned());
        }
        match text.parse::<IpAddr>() {
            Err(_) => errors.push(format!("invalid IP address: {text}")),
            Ok(address) => errors.extend(outside(network, address)),
        }
    }
    if network.is_predefined() && settings.aliases.as_ref().is_some_and(|a| !a.is_empty()) {
        errors.push("network-scoped alias is supported only for containers in user defined networks".to_owned());
    }
    if !settings.mac_address.is_empty() && links::parse_hardware(&settings.mac_address).is_none() {
        errors.push(format!("invalid MAC address: {}", settings.mac_address));
    }
    errors.extend(endpoint::mistakes(settings));
    if errors.is_empty() {
        return Ok(());
    }
    let (name, all) = (&network.name, request::joined(&errors));
    Err(DockerError::invalid(format!("invalid config for network {name}: invalid endpoint settings:\n{all}")))
}

fn asked(wanted: &EndpointIpam) -> Vec<&str> {
    [&wanted.ipv4_address, &wanted.ipv6_address].into_iter().filter(|t| !t.is_empty()).map(String::as_str).collect()
}

fn outside(network: &Network, address: IpAddr) -> Option<String> {
    if !network.pools.iter().any(|p| p.asked_for && p.is_v4() == address.is_ipv4()) {
        let what =
            "user specified IP address is supported only when connecting to networks with user configured subnets";
        return Some(what.to_owned());
    }
    let inside = network.pools.iter().any(|p| p.subnet.contains(&address));
    (!inside).then(|| format!("no configured subnet contains IP address {address}"))
}

/// Gives addresses and names; nothing is made yet.
fn reserve(kept: &mut Kept, member: &Member, hostname: &str, settings: &EndpointSettings) -> Result<Joined> {
    let network = kept.network.clone();
    let endpoint_id = new_id();
    let mut joined = Joined {
        network: network.id.clone(),
        interface: String::new(),
        host_interface: String::new(),
        mac: String::new(),
        v4: None,
        v6: None,
        gateway_v4: None,
        gateway_v6: None,
        priority: settings.gw_priority,
        names: names(member, hostname, settings),
        links: settings.links.clone().unwrap_or_default(),
        link_local: endpoint::link_local(settings),
        sysctls: endpoint::sysctls(settings),
        endpoint_id,
    };
    if network.driver == "host" || network.driver == "null" {
        return Ok(joined);
    }
    let wanted = settings.ipam_config.clone().unwrap_or_default();
    for v6 in [false, true] {
        let text = if v6 { &wanted.ipv6_address } else { &wanted.ipv4_address };
        let address = text.parse::<IpAddr>().ok();
        let mut of_family = kept.pools.iter_mut().filter(|p| p.pool.is_v4() != v6);
        let pool = of_family.find(|p| address.is_none_or(|a| p.pool.subnet.contains(&a)));
        let Some(pool) = pool else { continue };
        let taken = pool.take(address);
        let taken = taken.map(|a| pool.pool.with_prefix(a)).inspect_err(|_| undo(kept, &joined))?;
        let gateway = kept.network.pool(v6).filter(|_| !network.internal).map(|p| p.gateway);
        let (address, its_gateway) =
            if v6 { (&mut joined.v6, &mut joined.gateway_v6) } else { (&mut joined.v4, &mut joined.gateway_v4) };
        (*address, *its_gateway) = (Some(taken), gateway);
    }
    joined.mac = match settings.mac_address.as_str() {
        "" => links::hardware_of(&joined.endpoint_id, joined.v4.map(|n| n.addr())).to_string(),
        given => given.to_ascii_lowercase(),
    };
    joined.interface = endpoint::interface(settings).map_or_else(|| interface(member), str::to_owned);
    if network.is_bridge() {
        joined.host_interface = format!("veth{:08x}", links::hash(&joined.endpoint_id) >> 32);
    }
    Ok(joined)
}

fn undo(kept: &mut Kept, joined: &Joined) {
    for address in joined.v4.iter().map(|net| net.addr()) {
        kept.pools.iter_mut().filter(|p| p.pool.subnet.contains(&address)).for_each(|p| p.give_back(address));
    }
}

/// The first name of an interface that is free in the container.
fn interface(member: &Member) -> String {
    let taken = |name: &String| member.joined.iter().any(|j| j.interface == *name);
    // There are fewer connections than numbers.
    (0_u32..).map(|number| format!("eth{number}")).find(|name| !taken(name)).unwrap_or_default()
}

/// What neighbours may call it: its name, aliases, the short form of its id, its host name.
fn names(member: &Member, hostname: &str, settings: &EndpointSettings) -> Vec<String> {
    let short = member.container.get(..12).unwrap_or(&member.container);
    let aliases = settings.aliases.iter().flatten().map(String::as_str);
    let mut all: Vec<String> = Vec::new();
    for name in [member.name.as_str()].into_iter().chain(aliases).chain([short, hostname]) {
        if !name.is_empty() && !all.iter().any(|known| known == name) {
            all.push(name.to_owned());
        }
    }
    all
}

/// What a container's resolver knows.
struct Neighbours {
    networks: Weak<Networks>,
    container: String,
}

impl Neighbours {
    fn look<T>(&self, at: impl FnOnce(&Inner, &Member) -> T) -> Option<T> {
        let networks = self.networks.upgrade()?;
        let inner = networks.inner.lock();
        let member = inner.members.get(&self.container)?;
        Some(at(&inner, member))
    }
}

/// The container's connections to networks that have names, with those networks.
fn named<'a>(inner: &'a Inner, member: &'a Member) -> impl Iterator<Item = &'a Network> {
    let networks = member.joined.iter().filter_map(|j| inner.networks.get(&j.network));
    networks.map(|kept| &kept.network).filter(|network| network.is_user_defined())
}

/// Whom a container's links in a network mean by a name.
fn linked<'a>(member: &'a Member, network: &Network, name: &str) -> Option<&'a str> {
    let joined = member.joined.iter().find(|j| j.network == network.id)?;
    let mut links = joined.links.iter().map(|link| parse_link(link));
    links.find(|(_, alias)| alias.eq_ignore_ascii_case(name)).map(|(target, _)| target)
}

fn members_of<'a>(inner: &'a Inner, network: &'a Network) -> impl Iterator<Item = (&'a Member, &'a Joined)> {
    let members = inner.members.values();
    members.flat_map(|m| m.joined.iter().filter(|j| j.network == network.id).map(move |j| (m, j)))
}

impl Names for Neighbours {
    fn addresses(&self, name: &str) -> Found {
        let looked = self.look(|inner, member| {
            for network in named(inner, member) {
                let suffix = format!(".{}", network.name);
                let name = linked(member, network, name).unwrap_or(name);
                let short = name.strip_suffix(suffix.as_str()).unwrap_or(name);
                let is = |m: &Member, j: &Joined| {
                    let mut names = j.names.iter();
                    names.any(|n| n.eq_ignore_ascii_case(short) || n.eq_ignore_ascii_case(name)) || m.container == name
                };
                let of_name = members_of(inner, network).filter(|(m, j)| is(m, j));
                let addresses: Vec<IpAddr> =
                    of_name.flat_map(|(_, j)| j.v4.iter().chain(&j.v6).map(|net| net.addr())).collect();
                if !addresses.is_empty() {
                    return Found::Addresses(addresses);
                }
            }
            Found::Unknown
        });
        looked.unwrap_or(Found::Unknown)
    }

    fn name(&self, address: IpAddr) -> Found {
        let looked = self.look(|inner, member| {
            for network in named(inner, member) {
                let has = |j: &Joined| j.v4.iter().chain(&j.v6).any(|net| net.addr() == address);
                if let Some((found, _)) = members_of(inner, network).find(|(_, j)| has(j)) {
                    return Found::Name(format!("{}.{}", found.name, network.name));
                }
            }
            Found::Unknown
        });
        looked.unwrap_or(Found::Unknown)
    }

    fn servers(&self) -> Vec<SocketAddr> {
        let asked = self.look(|inner, member| {
            let outside = member.joined.iter().filter_map(|j| inner.networks.get(&j.network));
            outside.clone().any(|kept| !kept.network.internal).then(|| member.resolvers.clone())
        });
        let Some(Some(own)) = asked else { return Vec::new() };
        let servers = if own.is_empty() { servers_of_host() } else { own };
        servers.into_iter().map(|server| SocketAddr::new(server, 53)).collect()
    }
}

/// Read again for every question that is passed on: machines move between networks.
fn servers_of_host() -> Vec<IpAddr> {
    let path = "/etc/resolv.conf";
    let small = std::fs::metadata(path).is_ok_and(|m| m.len() <= MAX_RESOLV_CONF);
    let text = if small { std::fs::read_to_string(path).unwrap_or_default() } else { String::new() };
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok()).flatten()
    };
    text.lines().filter_map(server).collect()
}
