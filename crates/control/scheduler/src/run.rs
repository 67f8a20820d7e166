//! The scheduler's loop: takes pods from the queue, has them bound in the background, or room made for them.

use crate::bind::{Attempt, Before, Binder};
use crate::bind_volumes::{self, Failure};
use crate::configuration::Configuration;
use crate::csi_nodes;
use crate::cycle::Misfit;
use crate::dra;
use crate::evict::{Eviction, patch_status};
use crate::extender::{Extender, ExtenderError};
use crate::metrics::{Metrics, Outcome, Point};
use crate::pod::PodInfo;
use crate::preemption::{Offer, Preemption, candidates, pick, preempt};
use crate::queue::Popped;
use crate::selectors::Owner;
use crate::shared::{Ours, Shared};
use crate::storage_capacity;
use pintle_client::Client;
use pintle_clock::Clock;
use pintle_informer::{EventType, Informer, Informers, Recorder};
use pintle_types::k8s::api::apps::v1::{ReplicaSet, StatefulSet};
use pintle_types::k8s::api::core::v1::{
    Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, Service,
};
use pintle_types::k8s::api::policy::v1::PodDisruptionBudget;
use pintle_types::k8s::api::storage::v1::StorageClass;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use std::sync::{Arc, Weak};
use std::time::Instant;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) const NAME: &str = "default-scheduler";
/// Bindings under way at a time.
const MAX_BINDINGS: usize = 256;

/// What the scheduler works with.
#[derive(Clone)]
pub struct Config {
    pub client: Client,
    /// May be shared with others that read pods and nodes.
    pub informers: Informers,
    pub clock: Arc<dyn Clock>,
    /// Of the choice among equal nodes: the same seed and events make the same choices.
    pub seed: u64,
    /// Upstream's defaults when nothing is configured.
    pub configuration: Arc<Configuration>,
    /// Where it is counted; kept over several runs.
    pub metrics: Arc<Metrics>,
}

/// Why a scheduler does not start. Nothing ends one that runs but its token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Extender(#[from] ExtenderError),
}

pub(crate) struct Scheduler {
    pub(crate) shared: Arc<Shared>,
    client: Client,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    bindings: TaskTracker,
    permits: Arc<Semaphore>,
    stop: CancellationToken,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) extenders: Arc<[Extender]>,
}

/// Whose turn it is next: of the nodes, and of those that are equally good.
pub(crate) struct Turn {
    pub(crate) start: usize,
    pub(crate) random: StdRng,
}

/// Why a pod has no node.
pub(crate) enum Unplaced {
    /// None will do.
    Misfit(Misfit),
    /// Nobody knows: somebody who was to be asked did not answer.
    Error(String),
}

/// Schedules pods until `stop`.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Error> {
    let extenders = config.configuration.extenders.iter().cloned().map(Extender::new);
    let extenders: Arc<[Extender]> = extenders.collect::<Result<Vec<_>, _>>()?.into();
    let shared = Arc::new(Shared::new(&config.configuration, &config.metrics));
    let known: Weak<Shared> = Arc::downgrade(&shared);
    config.metrics.show(known);
    let recorder = Recorder::with_clock(config.client.clone(), NAME, "", Arc::clone(&config.clock));
    let scheduler = Scheduler {
        shared: Arc::clone(&shared),
        client: config.client,
        recorder,
        clock: config.clock,
        bindings: TaskTracker::new(),
        permits: Arc::new(Semaphore::new(MAX_BINDINGS)),
        stop: stop.clone(),
        metrics: config.metrics,
        extenders,
    };
    stop.run_until_cancelled(async {
        follow(&config.informers, &shared).await;
        let limits = csi_nodes::follow(scheduler.client.clone(), Arc::clone(&scheduler.shared), stop.clone());
        let devices = dra::follow(
            scheduler.client.clone(),
            config.informers.clone(),
            Arc::clone(&scheduler.shared),
            stop.clone(),
        );
        let rooms = storage_capacity::follow(config.informers.clone(), Arc::clone(&scheduler.shared), stop.clone());
        let turn = Turn { start: 0, random: StdRng::seed_from_u64(config.seed) };
        tokio::join!(scheduler.work(turn), limits, devices, rooms);
    })
    .await;
    scheduler.bindings.close();
    scheduler.bindings.wait().await;
    Ok(())
}

/// Lets changes come to what is shared, and waits until all that is there has.
async fn follow(informers: &Informers, shared: &Arc<Shared>) {
    let nodes: Informer<Node> = informers.of();
    let pods: Informer<Pod> = informers.of();
    let namespaces: Informer<Namespace> = informers.of();
    let of_namespaces = Arc::clone(shared);
    namespaces.on_change(move |change| of_namespaces.namespace_changed(change));
    let of_nodes = Arc::clone(shared);
    nodes.on_change(move |change| of_nodes.node_changed(change));
    let claims: Informer<PersistentVolumeClaim> = informers.of();
    let volumes: Informer<PersistentVolume> = informers.of();
    let classes: Informer<StorageClass> = informers.of();
    let budgets: Informer<PodDisruptionBudget> = informers.of();
    let of_budgets = Arc::clone(shared);
    budgets.on_change(move |change| of_budgets.budget_changed(change));
    let (of_claims, of_volumes, of_classes) = (Arc::clone(shared), Arc::clone(shared), Arc::clone(shared));
    claims.on_change(move |change| of_claims.claim_changed(change));
    volumes.on_change(move |change| of_volumes.volume_changed(change));
    classes.on_change(move |change| of_classes.class_changed(change));
    follow_selectors(informers, shared).await;
    let of_pods = Arc::clone(shared);
    pods.on_change(move |change| of_pods.pod_changed(change));
    nodes.synced().await;
    pods.synced().await;
    namespaces.synced().await;
    claims.synced().await;
    volumes.synced().await;
    classes.synced().await;
    budgets.synced().await;
}

/// The same for who selects pods, where that is how pods are spread.
async fn follow_selectors(informers: &Informers, shared: &Arc<Shared>) {
    if shared.profiles.iter().all(|ours| ours.profile.default_constraints().is_empty()) {
        return;
    }
    let services: Informer<Service> = informers.of();
    let controllers: Informer<ReplicationController> = informers.of();
    let sets: Informer<ReplicaSet> = informers.of();
    let stateful: Informer<StatefulSet> = informers.of();
    let of_services = Arc::clone(shared);
    services.on_change(move |change| of_services.service_changed(change));
    let (of_controllers, of_sets, of_stateful) = (Arc::clone(shared), Arc::clone(shared), Arc::clone(shared));
    controllers.on_change(move |change| of_controllers.owner_changed(change, Owner::ReplicationController));
    sets.on_change(move |change| of_sets.owner_changed(change, Owner::ReplicaSet));
    stateful.on_change(move |change| of_stateful.owner_changed(change, Owner::StatefulSet));
    services.synced().await;
    controllers.synced().await;
    sets.synced().await;
    stateful.synced().await;
}

impl Scheduler {
    async fn work(&self, mut turn: Turn) {
        loop {
            let popped = self.shared.queue.pop().await;
            // Asking for another scheduler takes a new pod; this one is gone from the queue by its event.
            let Some(ours) = self.shared.ours(&popped.pod) else { continue };
            let since = Instant::now();
            let placed = self.place(&popped.pod, ours, &mut turn).await;
            self.metrics.algorithm.observe(since.elapsed().as_secs_f64());
            match placed {
                Ok((node, before)) => {
                    let attempt = Attempt { popped, counts: Arc::clone(&ours.counts), since };
                    match before {
                        None => self.bind(attempt, node).await,
                        Some(before) => self.bind_after(attempt, node, before),
                    }
                }
                Err(Unplaced::Misfit(misfit)) => {
                    self.make_room(&popped, ours, misfit, &mut turn.random).await;
                    ours.counts.attempted(Outcome::Unschedulable, since.elapsed());
                }
                Err(Unplaced::Error(error)) => {
                    ours.counts.attempted(Outcome::Error, since.elapsed());
                    self.shared.queue.retry(&popped.pod.key);
                    self.report(&popped.pod, "SchedulerError", &error, None).await;
                }
            }
        }
    }

    /// Asks pods of lower priority to leave when that helps; the pod waits in any case.
    async fn make_room(&self, popped: &Popped, ours: &Ours, mut misfit: Misfit, random: &mut StdRng) {
        let pod = &popped.pod;
        if !ours.profile.preempts {
            self.shared.queue.unschedulable(&pod.key, misfit.plugins);
            return self.report(pod, UNSCHEDULABLE, &misfit.to_string(), None).await;
        }
        self.give_up_claims(pod, &mut misfit).await;
        let began = Instant::now();
        self.metrics.preemptions.inc();
        let room = self.find_room(pod, ours, &misfit, random).await;
        let found = matches!(room, Ok(Preemption::Room { .. }));
        self.metrics.timings.preempted(found, began);
        ours.counts.ran(Point::PostFilter, found, began);
        match room {
            Ok(Preemption::Room { node, victims }) => {
                self.metrics.victims.observe(victims.len() as f64);
                let displaced = self.nominate(pod, &node, &victims);
                self.report(pod, UNSCHEDULABLE, &misfit.to_string(), Some(&node)).await;
                self.evict(Arc::clone(pod), misfit, Eviction { node, victims, displaced }).await;
            }
            Ok(Preemption::NotEligible(why_not)) => {
                misfit.preemption = why_not.into();
                self.shared.queue.unschedulable(&pod.key, misfit.plugins);
                self.report(pod, UNSCHEDULABLE, &misfit.to_string(), None).await;
            }
            Ok(Preemption::NoNode(why_not)) => {
                misfit.preemption = why_not.into();
                let forgotten = self.shared.snapshot.lock().forget_nomination(&pod.key);
                if forgotten {
                    self.shared.promise_void(pod);
                }
                let promised = forgotten || pod.nominated().is_some();
                self.shared.queue.unschedulable(&pod.key, misfit.plugins);
                self.report(pod, UNSCHEDULABLE, &misfit.to_string(), promised.then_some("")).await;
            }
            Err(error) => {
                misfit.preemption = error.to_string().into();
                self.shared.queue.unschedulable(&pod.key, misfit.plugins);
                self.report(pod, UNSCHEDULABLE, &misfit.to_string(), None).await;
            }
        }
    }

    /// Lets a claim be allocated anew that nobody uses and that keeps the pod from all nodes.
    async fn give_up_claims(&self, pod: &PodInfo, misfit: &mut Misfit) {
        if !dra::is_concerned(pod, self.shared.snapshot.lock().devices()) {
            return;
        }
        misfit.claims = "still not schedulable";
        if ![dra::UNAVAILABLE, dra::STALE].iter().any(|reason| misfit.reasons.contains_key(*reason)) {
            return;
        }
        match dra::deallocate(&self.client, &self.shared, pod).await {
            Ok(Some(done)) => misfit.claims = done,
            Ok(None) => {}
            Err(error) => tracing::warn!(pod = %pod.key, %error, "could not give up a claim"),
        }
    }

    /// Where room can be made for the pod, by the plugins and by the servers that have a say.
    async fn find_room(
        &self,
        pod: &PodInfo,
        ours: &Ours,
        misfit: &Misfit,
        random: &mut StdRng,
    ) -> Result<Preemption, ExtenderError> {
        let asked = |e: &&Extender| !e.settings.preempt.is_empty() && e.cares_for(pod);
        let asked: Vec<&Extender> = self.extenders.iter().filter(asked).collect();
        if asked.is_empty() {
            return Ok(preempt(pod, &ours.profile, &self.shared.snapshot.lock(), misfit, random));
        }
        let found = candidates(pod, &ours.profile, &self.shared.snapshot.lock(), misfit, random);
        match found {
            Ok(offers) => self.left_by_extenders(pod, &asked, offers).await.map(pick),
            Err(none) => Ok(none),
        }
    }

    /// The offers that all these servers agree to.
    async fn left_by_extenders(
        &self,
        pod: &PodInfo,
        asked: &[&Extender],
        mut offers: Vec<Offer>,
    ) -> Result<Vec<Offer>, ExtenderError> {
        for extender in asked {
            if offers.is_empty() {
                break;
            }
            match extender.preempt(pod, offers.clone()).await {
                Ok(left) => offers = left,
                Err(error) if extender.settings.ignorable => {
                    tracing::warn!(pod = %pod.key, %error, "an extender that may be ignored was not asked for victims");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(offers)
    }

    /// Promises the node's room to the pod; returns the less important pods that it was promised to before.
    fn nominate(&self, pod: &Arc<PodInfo>, node: &str, victims: &[Arc<PodInfo>]) -> Vec<Arc<PodInfo>> {
        let mut snapshot = self.shared.snapshot.lock();
        let lesser = snapshot.nominated_on(node).iter().filter(|p| p.priority < pod.priority).cloned();
        let displaced: Vec<Arc<PodInfo>> = lesser.collect();
        for other in &displaced {
            snapshot.forget_nomination(&other.key);
        }
        snapshot.nominate(Arc::clone(pod), node);
        snapshot.await_leaving(&pod.key, victims);
        displaced
    }

    /// Deletes the victims in the background; the pod is not tried again before that is done.
    async fn evict(&self, pod: Arc<PodInfo>, misfit: Misfit, eviction: Eviction) {
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return };
        let (shared, client, recorder) = (Arc::clone(&self.shared), self.client.clone(), self.recorder.clone());
        let now = self.clock.now_seconds().to_string();
        self.bindings.spawn(async move {
            let _permit = permit;
            match eviction.carry_out(&client, &recorder, &pod, &now).await {
                Ok(()) => shared.queue.unschedulable(&pod.key, misfit.plugins),
                Err(error) => {
                    tracing::warn!(pod = %pod.key, %error, "could not make room for a pod");
                    shared.snapshot.lock().forget_nomination(&pod.key);
                    shared.queue.retry(&pod.key);
                }
            }
        });
    }

    /// Tells the API server of the choice, in the background.
    async fn bind(&self, attempt: Attempt, node: String) {
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return };
        let binder = self.binder();
        self.bindings.spawn(async move {
            let _permit = permit;
            binder.metrics.bindings.inc();
            binder.bind(&attempt, &node).await;
            binder.metrics.bindings.dec();
        });
    }

    /// The same for a pod that something is to be done for first, which may take long: others don't wait for it.
    fn bind_after(&self, attempt: Attempt, node: String, before: Before) {
        let (binder, permits) = (self.binder(), Arc::clone(&self.permits));
        let patience = self.shared.ours(&attempt.popped.pod).map(|ours| ours.profile.bind_timeout).unwrap_or_default();
        self.bindings.spawn(async move {
            let (pod, began) = (Arc::clone(&attempt.popped.pod), Instant::now());
            let prepared = binder.stop.run_until_cancelled(prepare(&binder, &pod, &node, &before, patience)).await;
            attempt.counts.ran(Point::PreBind, matches!(prepared, Some(Ok(()))), began);
            if let Some(volumes) = &before.volumes {
                binder.shared.snapshot.lock().storage_mut().release(volumes);
            }
            match prepared {
                Some(Ok(())) => {
                    let Ok(_permit) = permits.acquire_owned().await else { return };
                    binder.bind(&attempt, &node).await;
                }
                Some(Err(None)) | None => {}
                Some(Err(Some(error))) => {
                    let message = format!("running PreBind plugin {error}");
                    binder.recorder.event(&*pod.pod, EventType::Warning, "FailedScheduling", message);
                    attempt.counts.attempted(Outcome::Error, attempt.since.elapsed());
                    dra::unreserve(&binder.client, &binder.shared, &pod).await;
                    binder.give_up(&pod);
                }
            }
        });
    }

    fn binder(&self) -> Binder {
        Binder {
            shared: Arc::clone(&self.shared),
            client: self.client.clone(),
            clock: Arc::clone(&self.clock),
            recorder: self.recorder.clone(),
            stop: self.stop.clone(),
            metrics: Arc::clone(&self.metrics),
            extenders: Arc::clone(&self.extenders),
        }
    }

    /// Says on the pod why it waits, and where room is made for it (nowhere any more when empty).
    async fn report(&self, pod: &PodInfo, reason: &str, message: &str, nominated: Option<&str>) {
        self.recorder.event(&*pod.pod, EventType::Warning, "FailedScheduling", message);
        let current = pod.pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let told = current.filter(|c| c.type_ == "PodScheduled").any(|c| c.message.as_deref() == Some(message));
        if told && nominated.is_none() {
            return;
        }
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
            "observedGeneration": pod.pod.metadata.generation,
            "lastProbeTime": null, "lastTransitionTime": self.clock.now_seconds().to_string(),
        });
        let mut status = json!({ "conditions": [condition] });
        if let Some(node) = nominated {
            status["nominatedNodeName"] = if node.is_empty() { json!(null) } else { json!(node) };
        }
        if let Err(error) = patch_status(&self.client, pod, status).await {
            tracing::warn!(pod = %pod.key, %error, "could not say on a pod why it is unschedulable");
        }
    }
}

/// Has the pod's claims bound, to volumes and to devices. Fails with the plugin's name and words, or with nothing when
/// nobody waits any more.
async fn prepare(
    binder: &Binder,
    pod: &PodInfo,
    node: &str,
    before: &Before,
    patience: std::time::Duration,
) -> Result<(), Option<String>> {
    let mut bound = Ok(());
    if let Some(volumes) = &before.volumes {
        bound = match bind_volumes::bind(&binder.client, &binder.shared, pod, node, volumes, patience).await {
            Err(Failure::Gone) => Err(None),
            result => result.map_err(|error| Some(format!("\"VolumeBinding\": {error}"))),
        };
    }
    let Some(claims) = &before.claims else { return bound };
    match bound {
        Ok(()) => {
            dra::bind(binder, pod, node, claims).await.map_err(|error| Some(format!("\"DynamicResources\": {error}")))
        }
        failed => {
            claims.release(&binder.shared);
            failed
        }
    }
}

/// The reason of a pod's condition that no node will do for.
const UNSCHEDULABLE: &str = "Unschedulable";
