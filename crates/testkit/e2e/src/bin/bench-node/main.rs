//! Measures nodes: rolling updates under load, a thousand services, a node full of pods, pods that come and go for long.
//!
//! Words on the command line choose parts: `rolling`, `services`, `pods`, `loop`; without any all are measured. Everything
//! shares the machine, the load's own work too; `--help` names the sizes that can be changed.

mod connect;
mod lasting;
mod load;
mod peer;
mod pods;
mod rolling;
mod services;
mod watched;

use anyhow::{Context, Result, bail};
use std::time::Duration;

const USAGE: &str = "usage: bench-node [rolling] [services] [pods] [loop] [--rate 2000] [--rolls 3] [--replicas 6] \
                     [--services 1000] [--pods 110] [--loop-pods 200] [--minutes 20]";

/// How much of everything.
pub struct Sizes {
    /// Requests per second.
    rate: u32,
    rolls: u32,
    replicas: u32,
    services: usize,
    pods: usize,
    loop_pods: usize,
    lasting: Duration,
}

type Part = (&'static str, fn(&Sizes) -> Result<()>);
const PARTS: [Part; 4] = [
    ("rolling", rolling::measure),
    ("services", services::measure),
    ("pods", pods::measure),
    ("loop", lasting::measure),
];

fn main() -> Result<()> {
    let (chosen, sizes) = arguments(std::env::args().skip(1))?;
    for (name, part) in PARTS {
        if chosen.is_empty() || chosen.iter().any(|word| word == name) {
            part(&sizes).with_context(|| format!("the part {name}"))?;
        }
    }
    Ok(())
}

fn arguments(mut words: impl Iterator<Item = String>) -> Result<(Vec<String>, Sizes)> {
    let mut sizes = Sizes {
        rate: 2000,
        rolls: 3,
        replicas: 6,
        services: 1000,
        pods: 110,
        loop_pods: 200,
        lasting: Duration::from_secs(20 * 60),
    };
    let mut chosen = Vec::new();
    while let Some(word) = words.next() {
        if PARTS.iter().any(|(name, _)| *name == word) {
            chosen.push(word);
            continue;
        }
        let value = words.next().and_then(|value| value.parse::<u32>().ok()).filter(|value| *value > 0);
        let value = value.context(USAGE)?;
        match word.as_str() {
            "--rate" => sizes.rate = value,
            "--rolls" => sizes.rolls = value,
            "--replicas" => sizes.replicas = value,
            "--services" => sizes.services = value as usize,
            "--pods" => sizes.pods = value as usize,
            "--loop-pods" => sizes.loop_pods = value as usize,
            "--minutes" => sizes.lasting = Duration::from_secs(u64::from(value) * 60),
            _ => bail!(USAGE),
        }
    }
    Ok((chosen, sizes))
}
