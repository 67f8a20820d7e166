//! What goes wrong, and when.

use crate::chance::Chance;
use crate::link::Weather;
use crate::node::SimNode;
use crate::plane::Plane;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
/// Between two faults.
const PAUSE: Range<Duration> = SECOND..Duration::from_secs(25);
/// How long most of them last.
const LENGTH: Range<Duration> = SECOND..Duration::from_secs(150);

/// What is to be mended later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Broken {
    Power(usize),
    Kubelet(usize),
    Cable(usize),
    Server,
    Scheduler,
    Controllers,
}

/// Breaks parts of a cluster for a time.
pub(crate) struct Faults {
    chance: Chance,
    broken: BTreeMap<Broken, Instant>,
}

impl Faults {
    pub(crate) fn new(chance: Chance) -> Self {
        Self { chance, broken: BTreeMap::new() }
    }

    /// The weather of this run, the same for all links.
    pub(crate) fn weather(&self) -> Weather {
        if self.chance.happens(0.3) {
            return Weather::default();
        }
        let up_to = |most: f64| self.chance.number(0..1000) as f64 / 1000.0 * most;
        Weather {
            refuse: up_to(0.03),
            lose: up_to(0.03),
            cut: up_to(0.5),
            delay: self.chance.time(Duration::from_millis(1)..Duration::from_millis(100)),
            lag: self.chance.time(Duration::from_millis(1)..Duration::from_secs(3)),
        }
    }

    /// Breaks and mends until `until`; then mends everything.
    pub(crate) async fn run(&mut self, plane: &mut Plane, nodes: &mut [SimNode], until: Instant) -> anyhow::Result<()> {
        let mut next = Instant::now() + self.chance.time(PAUSE);
        while Instant::now() < until {
            let due = self.broken.iter().map(|(what, at)| (*at, *what)).min();
            match due {
                Some((at, what)) if at <= next => {
                    tokio::time::sleep_until(at.min(until)).await;
                    self.broken.remove(&what);
                    mend(what, plane, nodes).await?;
                }
                _ => {
                    tokio::time::sleep_until(next.min(until)).await;
                    self.strike(plane, nodes).await;
                    next = Instant::now() + self.chance.time(PAUSE);
                }
            }
        }
        while let Some((what, _)) = self.broken.pop_first() {
            mend(what, plane, nodes).await?;
        }
        Ok(())
    }

    async fn strike(&mut self, plane: &mut Plane, nodes: &mut [SimNode]) {
        let node = self.chance.number(0..nodes.len() as u64) as usize;
        let what = match self.chance.number(0..12) {
            0 | 1 => Broken::Power(node),
            2 | 3 => Broken::Kubelet(node),
            4 | 5 => Broken::Cable(node),
            6 => Broken::Server,
            7 => Broken::Scheduler,
            8 => Broken::Controllers,
            _ => return self.crash(&nodes[node]),
        };
        let off = |node: usize| [Broken::Power(node), Broken::Kubelet(node)];
        let is_off = |node: usize| off(node).iter().any(|what| self.broken.contains_key(what));
        if self.broken.contains_key(&what) || matches!(what, Broken::Power(n) | Broken::Kubelet(n) if is_off(n)) {
            return;
        }
        tracing::info!(?what, "breaks");
        match what {
            Broken::Power(node) => nodes[node].lose_power().await,
            Broken::Kubelet(node) => nodes[node].kill_kubelet().await,
            Broken::Cable(node) => nodes[node].link.set_connected(false),
            Broken::Server => plane.end_server(),
            Broken::Scheduler => plane.end_scheduler().await,
            Broken::Controllers => plane.end_controllers().await,
        }
        let long = matches!(what, Broken::Power(_) | Broken::Kubelet(_) | Broken::Cable(_));
        let length = if long { LENGTH } else { SECOND / 10..SECOND * 15 };
        self.broken.insert(what, Instant::now() + self.chance.time(length));
    }

    /// A container ends by itself.
    fn crash(&self, node: &SimNode) {
        let running = node.runtime.running_containers();
        if let Some((id, _)) = self.chance.pick(&running) {
            tracing::info!(node = node.name, id, "a container crashes");
            node.runtime.end(id, 1, "Error");
        }
    }
}

async fn mend(what: Broken, plane: &mut Plane, nodes: &mut [SimNode]) -> anyhow::Result<()> {
    tracing::info!(?what, "is mended");
    match what {
        Broken::Power(node) | Broken::Kubelet(node) if !nodes[node].is_up() => nodes[node].start_kubelet(plane),
        Broken::Power(_) | Broken::Kubelet(_) => {}
        Broken::Cable(node) => nodes[node].link.set_connected(true),
        Broken::Server => plane.start_server().await?,
        Broken::Scheduler => plane.restart_scheduler().await,
        Broken::Controllers => plane.restart_controllers().await,
    }
    Ok(())
}
