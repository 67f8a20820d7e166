//! `bench-scheduler`: schedules pods of the shapes of upstream's scheduler_perf and prints what each costs.
//!
//! The scheduler runs whole, with its informers, queue and bindings, over an API server in memory that only stores
//! and tells. Pods come so that at most [`WINDOW`] wait at a time. Server and load share the process: rates and
//! processor times hold their part too.

mod api;
mod measure;
mod shapes;

use anyhow::{Context, Result, bail};

const USAGE: &str = "usage: bench-scheduler [--nodes N] [--only TEXT]";

fn main() -> Result<()> {
    let (mut nodes, mut only) = (vec![500, 5000], String::new());
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value; {USAGE}"));
        match word.as_str() {
            "--nodes" => nodes = vec![value()?.parse().context("--nodes takes a number")?],
            "--only" => only = value()?,
            // One shape in a process of its own, so that its memory is its own.
            "--shape" => {
                let (nodes, name) = (value()?.parse().context("--shape takes nodes and a name")?, value()?);
                let shape = shapes::all(nodes).into_iter().find(|shape| shape.name == name);
                return measure::run(&shape.with_context(|| format!("there is no shape {name:?}"))?);
            }
            _ => bail!(USAGE),
        }
    }
    measure::head();
    for nodes in nodes {
        for shape in shapes::all(nodes).iter().filter(|shape| shape.name.contains(&only)) {
            let own = std::env::current_exe().context("find this program")?;
            let arguments = ["--shape", &nodes.to_string(), shape.name];
            let done = std::process::Command::new(own).args(arguments).status().context("run a shape")?;
            anyhow::ensure!(done.success(), "the shape {:?} failed", shape.name);
        }
    }
    Ok(())
}
