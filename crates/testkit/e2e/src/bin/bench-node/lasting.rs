//! Many pods that are created and deleted again and again, and what that leaves behind.

use crate::Sizes;
use crate::pods::{crowded, deploy, remove, start};
use anyhow::{Context, Result, ensure};
use pintle_e2e::figures::{mebibytes, milliseconds, quantile, ratio, tell};
use pintle_e2e::{Cluster, Held, Space, memory, until};
use std::time::{Duration, Instant};

/// How often the memory is told.
const QUARTERS: u32 = 4;
/// How long nothing may change, to say that nothing will.
const QUIET: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(120);

pub fn measure(sizes: &Sizes) -> Result<()> {
    let cluster = crowded(sizes.loop_pods)?;
    let space = cluster.space("loop")?;
    let same = rounds(&cluster, &space, sizes).with_context(|| space.describe())?;
    drop(space);
    cluster.finish()?;
    ensure!(same, "something of the pods is left");
    Ok(())
}

/// Creates all pods, waits until they run, deletes them, and waits until they are gone; how long that took.
fn round(space: &Space<'_>, pods: usize) -> Result<Duration> {
    let begun = Instant::now();
    start(space, pods)?;
    remove(space)?;
    let took = begun.elapsed();
    // The server keeps events for an hour, as it should; what it keeps besides is what is looked for.
    space.ok(&["delete", "--raw", &format!("/api/v1/namespaces/{}/events", space.name)])?;
    Ok(took)
}

/// Whether the same is held after as before.
fn rounds(cluster: &Cluster, space: &Space<'_>, sizes: &Sizes) -> Result<bool> {
    let pid = cluster.server_pid()?;
    let held = || Held::of(&cluster.host, pid, &cluster.path(""));
    // Caches fill and pools grow to their size.
    deploy(space)?;
    round(space, sizes.loop_pods)?;
    let (before, mut sizes_seen) = (settled(held)?, vec![memory(pid)?]);
    let (begun, mut took) = (Instant::now(), Vec::new());
    while begun.elapsed() < sizes.lasting || took.len() < 2 {
        took.push(round(space, sizes.loop_pods)?);
        if begun.elapsed() >= sizes.lasting * sizes_seen.len() as u32 / QUARTERS {
            sizes_seen.push(memory(pid)?);
        }
    }
    tell(
        &format!("rounds of {} pods, and pods", sizes.loop_pods),
        format!("{} {} in {:.0} s", took.len(), took.len() * sizes.loop_pods, begun.elapsed().as_secs_f64()),
    );
    let end = took.len().div_ceil(5);
    let (early, late) = (quantile(&took[..end], 0.5), quantile(&took[took.len() - end..], 0.5));
    tell(
        "a round, p50 of the first and of the last fifth",
        format!("{} {}, last to first {:.2}", milliseconds(early), milliseconds(late), ratio(late, early)),
    );
    let after = settled(held)?;
    tell("held before", format!("{before:?}"));
    tell("held after", format!("{after:?}"));
    let memories: Vec<String> = sizes_seen.iter().map(|bytes| mebibytes(*bytes)).collect();
    tell("memory of the server (PSS), from the start to the end", memories.join(", "));
    Ok(before == after)
}

/// What is held once that does not change any more: much is taken away in the background.
fn settled(held: impl Fn() -> Result<Held>) -> Result<Held> {
    let (mut last, mut since) = (held()?, Instant::now());
    until("what is held stays the same", LIMIT, || {
        let now = held()?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
        Ok((since.elapsed() >= QUIET).then_some(last))
    })
}
