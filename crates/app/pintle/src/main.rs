//! The one binary: reads the configuration, makes the parts and joins them.

mod access;
mod adapters;
mod addons;
mod agent;
mod background;
mod builtin;
mod certs;
mod cluster;
mod control_plane;
mod credentials;
mod cri;
mod datastore;
mod dev;
mod docker;
mod engine;
mod host;
mod identity;
mod images;
mod init;
mod join;
mod joining;
mod logging;
mod node;
mod oci;
mod pod_network;
mod presence;
mod pretend;
mod protection;
mod refresh;
mod registries;
mod reset;
mod server;
mod servers;
mod spare;
mod status;
mod token;
mod tunnel;
mod up;

use anyhow::{Context, Result};
use clap::Parser;
use pintle_cli::output::Format;
use pintle_cli::{Cli, Command};
use std::io::Write;
use std::process::ExitCode;

/// For `/debug/pprof/heap`.
#[global_allocator]
static HEAP: pintle_linux::heap_profile::SampledHeap = pintle_linux::heap_profile::SampledHeap;

fn main() -> ExitCode {
    pintle_linux::heap::limit_arenas();
    let command = match oci::arguments_by_name(std::env::args_os()) {
        Some(arguments) => Command::Oci(pintle_cli::Oci { arguments }),
        None => Cli::parse().command,
    };
    match run(command) {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    let result = runtime.block_on(async {
        match command {
            Command::Certs(command) => return certs::run(command).await,
            Command::Status(arguments) => return status::run(arguments).await,
            Command::Server(arguments) => server::run(arguments).await,
            Command::Engine(arguments) => engine::run(arguments).await,
            Command::Agent(arguments) => agent::run(arguments).await,
            Command::Init(arguments) => init::run(arguments).await,
            Command::Join(arguments) => join::run(arguments).await,
            Command::Token(command) => token::run(command).await,
            Command::Dev(command) => dev::run(command).await,
            Command::Up(arguments) => up::run(arguments).await,
            Command::Image(command) => images::run(command).await,
            Command::Reset(arguments) => reset::run(arguments).await,
            Command::Version(arguments) => version(arguments.output),
            Command::Hollow(arguments) => pretend::hollow(arguments).await,
            Command::Sim(arguments) => pretend::sim(arguments).await,
            Command::Oci(given) => oci::replace(given.arguments),
        }
        .map(|()| ExitCode::SUCCESS)
    });
    // A blocking thread that is stuck in the kernel must not keep the process alive.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}

#[allow(clippy::print_stderr)]
fn complain(error: &anyhow::Error) {
    eprintln!("pintle: {error:#}");
}

/// Prints a line for the person at the terminal. When nobody reads any more, the work goes on all the same.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The version of this program, and the one of Kubernetes that it is.
const VERSIONS: (&str, &str) = (env!("CARGO_PKG_VERSION"), "v1.36.2");

fn version(format: Format) -> Result<()> {
    let (own, kubernetes) = VERSIONS;
    match format {
        Format::Table => say(format_args!("pintle {own} (Kubernetes {kubernetes})")),
        Format::Json => say(serde_json::json!({ "version": own, "kubernetesVersion": kubernetes })),
    }
    Ok(())
}
