//! Progress of pulls and pushes, line by line as the CLI draws it.

use crate::answer::{Answer, Result, stream};
use crate::hijack::receiver_stream;
use bytes::Bytes;
use pintle_distribution::{Progress, Step};
use pintle_docker::DockerError;
use serde_json::{Value, json};
use std::io;
use tokio::sync::mpsc;

/// The client's end of what is told. Nothing waits for a slow client: what it does not take in time is dropped, but
/// for the last word.
#[derive(Clone)]
pub(crate) struct Teller(mpsc::UnboundedSender<Told>);

enum Told {
    Line(Bytes),
    Failed(DockerError),
}

impl Told {
    fn line(self) -> io::Result<Bytes> {
        Ok(match self {
            Self::Line(line) => line,
            Self::Failed(DockerError { message, .. }) => {
                line_of(&json!({ "errorDetail": { "message": message }, "error": message }))
            }
        })
    }
}

fn line_of(value: &Value) -> Bytes {
    Bytes::from(format!("{value}\r\n"))
}

/// A teller and the answer whose body it writes.
pub(crate) fn channel() -> (Teller, Answer) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Teller(sender), answer(None, receiver))
}

/// A teller whose answer begins with what it tells first: a failure before anything else is the answer's status.
pub(crate) fn waiting() -> (Teller, Waiting) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Teller(sender), Waiting(receiver))
}

/// What a teller will have told.
pub(crate) struct Waiting(mpsc::UnboundedReceiver<Told>);

impl Waiting {
    pub(crate) async fn answer(mut self) -> Result {
        match self.0.recv().await {
            Some(Told::Failed(error)) => Err(error),
            first => Ok(answer(first, self.0)),
        }
    }
}

fn answer(first: Option<Told>, mut rest: mpsc::UnboundedReceiver<Told>) -> Answer {
    let (bounded, pieces) = mpsc::channel(64);
    tokio::spawn(async move {
        let mut next = match first {
            Some(first) => Some(first),
            None => rest.recv().await,
        };
        while let Some(told) = next {
            if bounded.send(told.line()).await.is_err() {
                return;
            }
            next = rest.recv().await;
        }
    });
    stream("application/json", receiver_stream(pieces))
}

impl Teller {
    pub(crate) fn line(&self, line: &Value) {
        // The client may have gone.
        let _ = self.0.send(Told::Line(line_of(line)));
    }

    pub(crate) fn status(&self, text: &str) {
        self.line(&json!({ "status": text }));
    }

    /// Ends with a failure: a line, as the status has been sent.
    pub(crate) fn error(&self, text: &str) {
        self.fail(DockerError::internal(text));
    }

    /// The same, whose status counts where nothing was told before.
    pub(crate) fn fail(&self, error: DockerError) {
        // The client may have gone.
        let _ = self.0.send(Told::Failed(error));
    }

    pub(crate) fn progress(&self, progress: Progress) {
        lines(progress).iter().for_each(|line| self.line(line));
    }
}

/// What is told of a step of progress.
pub(crate) fn lines(progress: Progress) -> Vec<Value> {
    match progress {
        Progress::Layer { id, step } => vec![layer(&id, &step)],
        Progress::From { tag, repository } => {
            vec![json!({ "status": format!("Pulling from {repository}"), "id": tag })]
        }
        Progress::Digest(digest) => vec![json!({ "status": format!("Digest: {digest}") })],
        Progress::PushDone { tag, digest, size } => vec![
            json!({ "status": format!("{tag}: digest: {digest} size: {size}") }),
            json!({ "progressDetail": {}, "aux": { "Tag": tag, "Digest": digest, "Size": size } }),
        ],
        Progress::Line(text) => vec![json!({ "status": text })],
    }
}

fn layer(id: &str, step: &Step) -> Value {
    let moving = |status: &str, current: u64, total: u64| {
        let detail =
            if total == 0 { json!({ "current": current }) } else { json!({ "current": current, "total": total }) };
        json!({ "status": status, "progressDetail": detail, "progress": bar(current, total), "id": id })
    };
    let plain = |status: &str| json!({ "status": status, "progressDetail": {}, "id": id });
    match step {
        Step::Waiting => plain("Waiting"),
        Step::AlreadyExists => plain("Already exists"),
        Step::PullingLayer => plain("Pulling fs layer"),
        Step::Downloading(current, total) => moving("Downloading", *current, *total),
        Step::Verifying => plain("Verifying Checksum"),
        Step::DownloadComplete => plain("Download complete"),
        Step::Extracting(current, total) => moving("Extracting", *current, *total),
        Step::PullComplete => plain("Pull complete"),
        Step::Preparing => plain("Preparing"),
        Step::Pushing(current, total) => moving("Pushing", *current, *total),
        Step::Pushed => plain("Pushed"),
        Step::LayerExists => plain("Layer already exists"),
        Step::Mounted(from) => plain(&format!("Mounted from {from}")),
        Step::Retrying(seconds) => {
            plain(&format!("Retrying in {seconds} second{}", if *seconds == 1 { "" } else { "s" }))
        }
    }
}

/// `[=====>     ]  1.2MB/3.4MB`, fifty wide, for clients that do not draw themselves.
fn bar(current: u64, total: u64) -> String {
    if total == 0 {
        return size(current);
    }
    let filled = usize::try_from(current.min(total) * 50 / total).unwrap_or(50);
    let line = if filled == 50 { "=".repeat(50) + ">" } else { "=".repeat(filled) + ">" };
    let line = line.chars().take(51).collect::<String>();
    format!("[{line:<51}] {:>7}/{}", size(current), size(total))
}

/// Bytes with four digits, as docker writes them.
fn size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 1000.0 {
        0
    } else if value >= 100.0 {
        1
    } else if value >= 10.0 {
        2
    } else {
        3
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_four_digits() {
        for (bytes, text) in [(0, "0B"), (999, "999B"), (1_234, "1.234kB"), (12_345_678, "12.35MB"), (1_000_000, "1MB")]
        {
            assert_eq!(size(bytes), text);
        }
    }

    #[tokio::test]
    async fn what_fails_before_anything_was_told_is_a_status() {
        let (teller, waiting) = waiting();
        teller.fail(DockerError::not_found("none"));
        assert_eq!(waiting.answer().await.map(|_| ()).unwrap_err(), DockerError::not_found("none"));
        let (teller, waiting) = super::waiting();
        teller.status("some");
        teller.fail(DockerError::not_found("none"));
        drop(teller);
        let answer = waiting.answer().await.unwrap();
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        let lines = "{\"status\":\"some\"}\r\n{\"error\":\"none\",\"errorDetail\":{\"message\":\"none\"}}\r\n";
        assert_eq!(body, lines);
    }

    #[test]
    fn bars_grow() {
        assert!(bar(50, 100).starts_with(&format!("[{}>", "=".repeat(25))));
        assert!(bar(100, 100).starts_with(&format!("[{}>]", "=".repeat(50))));
    }
}
