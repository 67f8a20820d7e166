//! Sends log lines to the terminal or to a file.

use anyhow::{Context, Result};
use std::path::Path;
use std::sync::Mutex;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Logs what `levels` lets through: to `file` when given, else to standard error.
pub(crate) fn start(levels: &str, file: Option<&Path>) -> Result<()> {
    let targets: Targets = levels.parse().with_context(|| {
        format!("--log-level {levels:?} is not understood; write `info`, or `info,pintle_kubelet=debug`")
    })?;
    let (writer, colours) = match file {
        None => (BoxMakeWriter::new(std::io::stderr), rustix::termios::isatty(std::io::stderr())),
        Some(path) => {
            let file = std::fs::File::options().append(true).create(true).open(path);
            let file = file.with_context(|| format!("open the log file {}", path.display()))?;
            (BoxMakeWriter::new(Mutex::new(file)), false)
        }
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours).with_filter(targets);
    tracing_subscriber::registry().with(lines).try_init().context("start logging")
}
