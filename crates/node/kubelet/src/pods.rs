//! The one loop of the kubelet: pods that come, change and go; events of the runtime; a slow look at everything.

use crate::actor::{Actor, Wanted};
use crate::ending::{Ending, Order, Slot};
use crate::host::Host;
use crate::preemption::{self, Room, Victims};
use crate::reference::{own_grace, pod_text};
use crate::static_pods::{Mirrors, is_mirror, is_static};
use crate::status::{Ended, PREEMPTED, is_final};
use crate::{admission, placement, purge};
use futures::{FutureExt, StreamExt};
use pintle_cri::{EventStream, RuntimeEvent};
use pintle_informer::{Change, Informer};
use pintle_types::k8s::api::core::v1::{Pod, Service};
use pintle_types::{Kind, ObjectKey};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at};

/// Only a safety: everything is driven by events.
const RELIST: Duration = Duration::from_secs(300);
/// Between attempts to have the runtime's events.
const EVENTS_RETRY: Duration = Duration::from_secs(1);

/// One pod's actor, as the loop knows it.
struct Handle {
    key: ObjectKey,
    ending: Slot,
    is_static: bool,
    /// It makes room for another, and does not count any more.
    is_preempted: bool,
    wanted: watch::Sender<Wanted>,
    wake: Arc<Notify>,
}

impl Handle {
    fn end(&self, ending: Ending) {
        *self.ending.lock() = Some(ending);
        self.wake.notify_one();
    }
}

/// The pods of this node, and their actors.
pub struct Pods {
    host: Arc<Host>,
    informer: Informer<Pod>,
    services: Informer<Service>,
    mirrors: Arc<Mirrors>,
    /// Told by the files of static pods, whenever they change.
    told: mpsc::UnboundedReceiver<Vec<Arc<Pod>>>,
    statics: HashMap<ObjectKey, Arc<Pod>>,
    orders: mpsc::UnboundedReceiver<Order>,
    pub max_pods: usize,
    pub unsafe_sysctls: Vec<String>,
    handles: HashMap<String, Handle>,
    actors: JoinSet<String>,
    /// Uids of pods whose end was told and whose objects are still there: others hold them by finalizers. What the watch
    /// still says of them may be older than their end.
    over: HashSet<String>,
    /// Uids of pods that vanished and are being cleaned away.
    orphans: HashSet<String>,
    cleaning: JoinSet<String>,
}

impl Pods {
    pub fn new(
        host: Arc<Host>,
        informer: Informer<Pod>,
        services: Informer<Service>,
        mirrors: Arc<Mirrors>,
        told: mpsc::UnboundedReceiver<Vec<Arc<Pod>>>,
        orders: mpsc::UnboundedReceiver<Order>,
    ) -> Self {
        Self {
            host,
            informer,
            services,
            mirrors,
            told,
            statics: HashMap::new(),
            orders,
            max_pods: usize::MAX,
            unsafe_sysctls: Vec::new(),
            handles: HashMap::new(),
            actors: JoinSet::new(),
            over: HashSet::new(),
            orphans: HashSet::new(),
            cleaning: JoinSet::new(),
        }
    }

    /// Works for ever.
    pub async fn run(mut self) {
        // The runtime's events are had before anything is started, so that none is missed.
        let mut events = events(&self.host).await;
        let (sender, mut changes) = mpsc::unbounded_channel();
        // flow: pod 8/16
        self.informer.on_change(move |change| {
            let change = match change {
                Change::Added(pod) => (None, Some(Arc::clone(pod))),
                Change::Modified(old, new) => (Some(Arc::clone(old)), Some(Arc::clone(new))),
                Change::Deleted(pod) => (Some(Arc::clone(pod)), None),
            };
            // The receiver is only gone when the kubelet stops.
            let _ = sender.send(change);
        });
        if let Some(pods) = self.told.recv().await {
            self.take_statics(pods);
        }
        // Containers of pods of the API learn of all services; static pods wait for nobody.
        let (pods, services) = (self.informer.clone(), self.services.clone());
        let mut synced = Box::pin(async move {
            tokio::join!(services.synced(), pods.synced());
        });
        let mut is_synced = false;
        let mut relist = interval_at(tokio::time::Instant::now() + RELIST, RELIST);
        relist.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut synced, if !is_synced => {
                    is_synced = true;
                    while let Some(Some((old, new))) = changes.recv().now_or_never() {
                        self.change(old, new);
                    }
                    self.clean_orphans().await;
                }
                Some((old, new)) = changes.recv(), if is_synced => self.change(old, new),
                Some(pods) = self.told.recv() => self.take_statics(pods),
                Some(order) = self.orders.recv() => self.obey(order),
                event = events.next() => match event {
                    Some(event) => self.runtime_event(&event),
                    None => {
                        events = self::events(&self.host).await;
                        self.wake_all();
                    }
                },
                Some(ended) = self.actors.join_next() => self.actor_ended(ended),
                Some(cleaned) = self.cleaning.join_next() => {
                    if let Ok(uid) = cleaned {
                        self.orphans.remove(&uid);
                    }
                }
                _ = relist.tick(), if is_synced => {
                    self.wake_all();
                    self.clean_orphans().await;
                }
            }
        }
    }

    /// Takes the static pods that there are to be: those that are no longer among them are stopped.
    fn take_statics(&mut self, pods: Vec<Arc<Pod>>) {
        self.statics = pods.into_iter().filter(|pod| Host::is_safe_uid(pod)).map(|pod| (key(&pod), pod)).collect();
        for (uid, handle) in self.handles.iter().filter(|(_, handle)| handle.is_static) {
            if self.statics.get(&handle.key).is_none_or(|pod| pod.uid() != uid) {
                handle.wanted.send_replace(Wanted::Gone);
            }
        }
        self.mirrors.want(&self.statics);
        self.start_statics();
    }

    /// Starts static pods that do not run; one that replaces another waits for its end.
    fn start_statics(&mut self) {
        let busy: HashSet<&ObjectKey> = self.handles.values().filter(|h| h.is_static).map(|h| &h.key).collect();
        let free: Vec<_> = self.statics.iter().filter(|(key, _)| !busy.contains(key)).collect();
        let free: Vec<_> = free.into_iter().map(|(_, pod)| Arc::clone(pod)).collect();
        for pod in free {
            self.mirrors.running(&key(&pod), true);
            self.present(pod);
        }
    }

    /// A mirror came, changed or went: its static pod's actor reports to it.
    fn mirror_changed(&mut self, key: &ObjectKey, mirror: Option<Arc<Pod>>) {
        if let Some(pod) = self.statics.get(key)
            && let Some(handle) = self.handles.get(pod.uid())
        {
            handle.wanted.send_replace(Wanted::Static { pod: Arc::clone(pod), mirror });
        }
        self.mirrors.look_at(key.clone());
    }

    /// What an actor is told of its pod.
    fn wanted(&self, pod: Arc<Pod>) -> Wanted {
        if !is_static(&pod) {
            return Wanted::Present(pod);
        }
        let mirror = self.informer.get(&key(&pod)).filter(|mirror| is_mirror(mirror));
        Wanted::Static { pod, mirror }
    }

    fn change(&mut self, old: Option<Arc<Pod>>, new: Option<Arc<Pod>>) {
        if let Some(pod) = new.as_ref().or(old.as_ref())
            && (is_mirror(pod) || self.statics.contains_key(&key(pod)))
        {
            let key = key(pod);
            self.mirror_changed(&key, new.filter(|pod| is_mirror(pod)));
            return;
        }
        let replaced = |old: &Arc<Pod>| new.as_ref().is_none_or(|new| new.uid() != old.uid());
        if let Some(old) = old.filter(replaced) {
            self.over.remove(old.uid());
            if let Some(handle) = self.handles.get(old.uid()) {
                handle.wanted.send_replace(Wanted::Gone);
            }
        }
        if let Some(pod) = new {
            self.present(pod);
        }
    }

    fn present(&mut self, pod: Arc<Pod>) {
        if !Host::is_safe_uid(&pod) {
            tracing::warn!(pod = pod_text(&pod), "a pod whose uid is no plain name is ignored");
            return;
        }
        if let Some(handle) = self.handles.get(pod.uid()) {
            handle.wanted.send_replace(self.wanted(pod));
            return;
        }
        if self.over.contains(pod.uid()) {
            return;
        }
        let uid = pod.uid().to_owned();
        let (wanted, inbox) = watch::channel(self.wanted(Arc::clone(&pod)));
        let wake = Arc::new(Notify::new());
        let (key, is_static) = (key(&pod), is_static(&pod));
        let admission = self.admit(&pod).map(|victims| self.make_room(&victims));
        let ending = Slot::default();
        let actor = Actor::new(Arc::clone(&self.host), pod, inbox, Arc::clone(&wake));
        let actor = actor.admitted(Arc::clone(&ending), admission);
        self.handles.insert(uid.clone(), Handle { key, ending, is_static, is_preempted: false, wanted, wake });
        self.actors.spawn(actor.run().map(move |()| uid));
    }

    /// Whether this node takes a pod that is new here, and in whose place.
    fn admit(&self, pod: &Pod) -> Result<Victims, Ended> {
        if !admission::is_new(pod) {
            return Ok(Victims::default());
        }
        let ended = |other: &Pod| is_final(other.status.as_ref().and_then(|s| s.phase.as_deref()));
        // Those that came later wait for their own turn.
        let here = |other: &Pod| self.handles.get(other.uid()).is_some_and(|handle| !handle.is_preempted);
        let pods = self.informer.list().into_iter().chain(self.statics.values().cloned());
        let others: Vec<Arc<Pod>> = pods.filter(|o| o.uid() != pod.uid() && here(o) && !ended(o)).collect();
        let node = admission::Node {
            allocatable: &self.allocatable(),
            pressures: &self.host.pressures.current(),
            unsafe_sysctls: &self.unsafe_sysctls,
            is_ending: self.host.ending.is_set(),
            others: &others,
        };
        admission::admit(pod, &node)
    }

    /// What the node has for pods.
    fn allocatable(&self) -> BTreeMap<String, u64> {
        let settings = &self.host.settings;
        let disk = self.host.hardware.disk(&settings.root_dir).map_or(0, |(all, _)| all);
        let usual = [
            ("pods", u64::try_from(self.max_pods).unwrap_or(u64::MAX)),
            ("cpu", settings.allocatable_milli_cpu),
            ("memory", settings.allocatable_memory),
            ("ephemeral-storage", disk),
        ];
        let huge = settings.huge_pages.iter().map(|pages| (pages.resource(), pages.bytes()));
        usual.into_iter().map(|(name, amount)| (name.to_owned(), amount)).chain(huge).collect()
    }

    /// Ends those that go for a critical pod; returns what it waits for.
    fn make_room(&mut self, victims: &Victims) -> Option<Room> {
        let grace = |pod: &Pod| own_grace(pod).max(1);
        let (room, held) = Room::of(victims.pods.iter().map(|pod| grace(pod)));
        for victim in &victims.pods {
            let Some(handle) = self.handles.get_mut(victim.uid()) else { continue };
            tracing::warn!(pod = pod_text(victim), "preempting a pod for a critical one");
            self.host.events.pod(victim, true, PREEMPTED, preemption::MESSAGE.to_owned());
            self.host.measures.preemptions.with(&[&victims.resource]).inc();
            handle.is_preempted = true;
            let held = Some(held.clone());
            handle.end(Ending { ended: preemption::ended(), grace: grace(victim), hastens: true, held });
        }
        (!victims.pods.is_empty()).then_some(room)
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::End { uid, ending } => {
                if let Some(handle) = self.handles.get(&uid) {
                    handle.end(ending);
                }
            }
            // Who asked may be gone.
            Order::Tell(asked) => drop(asked.send(self.active())),
        }
    }

    /// The pods that are here, as they were told last, and have not ended.
    fn active(&self) -> Vec<Arc<Pod>> {
        let pod = |(uid, handle): (&String, &Handle)| {
            let told =
                if handle.is_static { self.statics.get(&handle.key).cloned() } else { self.informer.get(&handle.key) };
            told.filter(|pod| pod.uid() == uid)
        };
        let ended = |pod: &Arc<Pod>| is_final(pod.status.as_ref().and_then(|status| status.phase.as_deref()));
        self.handles.iter().filter_map(pod).filter(|pod| !ended(pod)).collect()
    }

    fn runtime_event(&self, event: &RuntimeEvent) {
        if let Some(handle) = self.handles.get(&event.pod_uid) {
            handle.wake.notify_one();
        }
    }

    fn wake_all(&self) {
        for handle in self.handles.values() {
            handle.wake.notify_one();
        }
    }

    fn actor_ended(&mut self, ended: Result<String, tokio::task::JoinError>) {
        match ended {
            Ok(uid) => {
                let Some(handle) = self.handles.remove(&uid) else { return };
                if handle.is_static {
                    self.mirrors.running(&handle.key, false);
                    self.start_statics();
                } else if self.informer.get(&handle.key).is_some_and(|pod| pod.uid() == uid) {
                    self.over.insert(uid);
                }
            }
            Err(error) => tracing::error!(%error, "a pod's actor failed; the pod is taken up again at the next look"),
        }
    }

    /// Cleans away what is left of pods that are not this node's any more.
    async fn clean_orphans(&mut self) {
        let present = match purge::uids_present(&self.host).await {
            Ok(present) => present,
            Err(error) => {
                tracing::warn!(%error, "the runtime can't be asked for orphans");
                return;
            }
        };
        let known: HashSet<String> = self.informer.list().iter().map(|pod| pod.uid().to_owned()).collect();
        placement::retain(&self.host, |uid| known.contains(uid) || self.handles.contains_key(uid)).await;
        for uid in present {
            if known.contains(&uid) || self.handles.contains_key(&uid) || !self.orphans.insert(uid.clone()) {
                continue;
            }
            tracing::info!(uid, "removing what is left of a pod that is gone");
            let host = Arc::clone(&self.host);
            self.cleaning.spawn(async move {
                if let Err(error) = purge::pod(&host, &uid, None).await {
                    tracing::warn!(error, uid, "an orphan can't be removed yet");
                }
                uid
            });
        }
    }
}

fn key(pod: &Pod) -> ObjectKey {
    ObjectKey::new(pod.namespace(), pod.name())
}

async fn events(host: &Host) -> EventStream {
    loop {
        match host.runtime.events().await {
            Ok(events) => return events,
            Err(error) => {
                tracing::warn!(%error, "the runtime's events can't be had; trying again");
                tokio::time::sleep(EVENTS_RETRY).await;
            }
        }
    }
}
