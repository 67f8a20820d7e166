//! Tries a cluster of so many nodes and pods: what `pintle sim` does, without the rest of pintle.
#![allow(clippy::print_stdout)]

use pintle_sim::{Capacity, measure};

fn main() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse());
    let mut next = |default| numbers.next().unwrap_or(Ok(default));
    let (nodes, pods) = (next(100)?, next(3000)?);
    let capacity = Capacity { nodes, pods, deployments: (pods / 30).max(1), ..Capacity::default() };
    println!("{}", measure(&capacity, |line| println!("{line}"))?);
    Ok(())
}
