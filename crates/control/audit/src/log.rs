//! Events as lines of JSON in a file that is rotated, or on standard output.

use crate::event::Event;
use crate::record::Sink;
use parking_lot::Mutex;
use pintle_clock::Clock;
use pintle_metrics::{Counter, Registry};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Where and how the log is kept.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// `-` is standard output.
    pub path: PathBuf,
    /// Age of rotated files, in days; 0 keeps them.
    pub max_age_days: u32,
    /// Rotated files that are kept; 0 keeps all.
    pub max_backups: usize,
    /// Size at which the file is rotated, in MiB; 0 never rotates.
    pub max_size_mib: u64,
    /// Written before the request goes on, as upstream does by default; otherwise by a task of its own.
    pub blocking: bool,
    /// Events that may wait to be written; more are lost, and counted.
    pub buffer: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { path: "-".into(), max_age_days: 0, max_backups: 0, max_size_mib: 100, blocking: false, buffer: 10_000 }
    }
}

/// The log can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the audit log {path}: {source}")]
pub struct LogError {
    pub path: PathBuf,
    #[source]
    pub source: std::io::Error,
}

/// Writes events to a log.
pub struct LogSink {
    output: Arc<Mutex<Output>>,
    queue: Option<mpsc::Sender<Arc<Event>>>,
    lost: Arc<Counter>,
}

impl LogSink {
    /// Opens the log. The task that comes with it writes what is queued, and ends after `stop` when all is written.
    pub fn open(
        options: LogOptions,
        clock: Arc<dyn Clock>,
        registry: &Registry,
        stop: CancellationToken,
    ) -> Result<(Arc<Self>, impl Future<Output = ()> + Send + use<>), LogError> {
        let (sender, receiver) = mpsc::channel(options.buffer.max(1));
        let queue = (!options.blocking).then_some(sender);
        let output = Arc::new(Mutex::new(Output::open(options, clock)?));
        let lost = errors(registry, "log");
        let sink = Arc::new(Self { output: output.clone(), queue, lost: lost.clone() });
        Ok((sink, drain(receiver, output, lost, stop)))
    }
}

/// Events that a plugin lost.
pub(crate) fn errors(registry: &Registry, plugin: &'static str) -> Arc<Counter> {
    let help = "[ALPHA] Counter of audit events that failed to be audited properly. Plugin identifies the plugin \
                affected by the error.";
    registry.counters("apiserver_audit_error_total", help, &["plugin"]).with(&[plugin])
}

/// Lines written in one go.
const BATCH: usize = 256;

async fn drain(
    mut receiver: mpsc::Receiver<Arc<Event>>,
    output: Arc<Mutex<Output>>,
    lost: Arc<Counter>,
    stop: CancellationToken,
) {
    let mut events = Vec::new();
    loop {
        tokio::select! {
            biased;
            count = receiver.recv_many(&mut events, BATCH) => if count == 0 { return },
            () = stop.cancelled(), if !receiver.is_closed() => { receiver.close(); continue }
        }
        let batch: Vec<u8> = events.drain(..).flat_map(|event| line(&event)).collect();
        let output = output.clone();
        let written = tokio::task::spawn_blocking(move || output.lock().write(&batch)).await;
        if !matches!(written, Ok(Ok(()))) {
            lost.inc();
            tracing::error!(?written, "audit events could not be written");
        }
    }
}

fn line(event: &Event) -> Vec<u8> {
    // Events have text keys only: they can be written as JSON.
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line
}

impl Sink for LogSink {
    fn write(&self, event: &Arc<Event>) {
        let written = match &self.queue {
            Some(queue) => queue.try_send(event.clone()).map_err(|e| e.to_string()),
            None => self.output.lock().write(&line(event)).map_err(|e| e.to_string()),
        };
        if let Err(error) = written {
            self.lost.inc();
            tracing::error!(error, id = event.audit_id, "an audit event could not be written");
        }
    }

    fn name(&self) -> &'static str {
        "log"
    }
}

/// The open file and how much is in it.
struct Output {
    options: LogOptions,
    clock: Arc<dyn Clock>,
    file: Option<File>,
    bytes: u64,
}

impl Output {
    fn open(options: LogOptions, clock: Arc<dyn Clock>) -> Result<Self, LogError> {
        let mut output = Self { options, clock, file: None, bytes: 0 };
        if output.options.path != Path::new("-") {
            output.reopen().map_err(|source| LogError { path: output.options.path.clone(), source })?;
        }
        Ok(output)
    }

    fn reopen(&mut self) -> std::io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        if let Some(folder) = self.options.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.options.path)?;
        self.bytes = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    fn write(&mut self, lines: &[u8]) -> std::io::Result<()> {
        let limit = self.options.max_size_mib << 20;
        if self.file.is_some() && limit > 0 && self.bytes > 0 && self.bytes + lines.len() as u64 > limit {
            self.rotate()?;
        }
        self.bytes += lines.len() as u64;
        match &mut self.file {
            Some(file) => file.write_all(lines),
            None => std::io::stdout().lock().write_all(lines),
        }
    }

    /// Gives the full file a name with the time, begins a new one, and forgets old ones.
    fn rotate(&mut self) -> std::io::Result<()> {
        let now = self.clock.now().strftime("%Y-%m-%dT%H-%M-%S.%3f").to_string();
        std::fs::rename(&self.options.path, self.backup(&now))?;
        self.reopen()?;
        self.forget()
    }

    fn backup(&self, time: &str) -> PathBuf {
        let (stem, extension) = self.parts();
        self.options.path.with_file_name(format!("{stem}-{time}{extension}"))
    }

    fn parts(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
        let extension = text(self.options.path.extension());
        let dotted = if extension.is_empty() { extension } else { format!(".{extension}") };
        (text(self.options.path.file_stem()), dotted)
    }

    fn forget(&self) -> std::io::Result<()> {
        let (stem, extension) = self.parts();
        let folder = self.options.path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut backups: Vec<(String, PathBuf)> = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let time = name.strip_prefix(&format!("{stem}-")).and_then(|n| n.strip_suffix(&extension));
            if let Some(time) = time.filter(|t| t.len() == "2006-01-02T15-04-05.000".len()) {
                backups.push((time.to_owned(), entry.path()));
            }
        }
        backups.sort_by(|a, b| b.cmp(a));
        let age = jiff::SignedDuration::from_hours(24 * i64::from(self.options.max_age_days));
        let oldest = self.clock.now() - age;
        let oldest = oldest.strftime("%Y-%m-%dT%H-%M-%S.%3f").to_string();
        for (at, (time, path)) in backups.iter().enumerate() {
            let many = self.options.max_backups > 0 && at >= self.options.max_backups;
            let old = self.options.max_age_days > 0 && *time < oldest;
            if many || old {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}
