//! `bench-api`: loads an API server in a closed loop and prints what each kind of request costs it.
//!
//! Without arguments it starts an API server of its own: one process, its store on the disk, security on. With
//! `--kubeconfig FILE [--pid PID]…` it measures any other one by the same requests (`--pid` names the processes whose
//! processor time and memory count). Load and server share the machine, so rates are lower than they would be apart;
//! processor time per request is what compares best.

mod connection;
mod fan_out;
mod measure;
mod memory;
mod objects;
mod requests;
mod rights;
mod serve;
mod target;

use anyhow::{Context, Result, bail};
use measure::say;
use std::path::PathBuf;
use target::Target;

/// What is to be measured.
struct Arguments {
    kubeconfig: Option<PathBuf>,
    pids: Vec<i32>,
    /// Only rows whose name contains this.
    only: String,
}

const USAGE: &str = "usage: bench-api [--kubeconfig FILE] [--pid PID]… [--only TEXT]";

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    let mut arguments = Arguments { kubeconfig: None, pids: Vec::new(), only: String::new() };
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value; {USAGE}"));
        match word.as_str() {
            // The server's own process.
            "serve" => return runtime.block_on(serve::run(&PathBuf::from(value()?))),
            "--kubeconfig" => arguments.kubeconfig = Some(value()?.into()),
            "--pid" => arguments.pids.push(value()?.parse().context("--pid takes a number")?),
            "--only" => arguments.only = value()?,
            _ => bail!(USAGE),
        }
    }
    runtime.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> Result<()> {
    let target = match arguments.kubeconfig {
        Some(file) => Target::of_kubeconfig(&file, arguments.pids)?,
        None => Target::start().await?,
    };
    let wanted = |name: &str| name.contains(&arguments.only);
    say(format_args!("{:<44} {:>10} {:>10} {:>10} {:>12}", "", "per second", "p50", "p99", "server CPU"));
    if target.is_own() && wanted("rights") {
        rights::run()?;
    }
    objects::prepare(&target).await?;
    if wanted("requests") {
        requests::run(&target).await?;
    }
    if wanted("list") {
        requests::lists(&target).await?;
    }
    if wanted("watch") {
        fan_out::run(&target).await?;
    }
    if wanted("memory") {
        memory::run(&target).await?;
    }
    objects::clean(&target).await
}
