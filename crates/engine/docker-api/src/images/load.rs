//! Brings images in from archives, and writes archives of them.

use super::{blocking, familiar, tell};
use crate::State;
use crate::answer::{Result, bytes, stream};
use crate::call::Call;
use crate::hijack::receiver_stream;
use bytes::Bytes;
use futures::TryStreamExt;
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::json;
use std::io::{self, Write};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::io::{StreamReader, SyncIoBridge};

/// Pieces that may wait for a slow client.
const WAITING: usize = 8;
const PIECE: usize = 64 << 10;

/// A request's body for a thread that reads it.
pub(crate) fn reader(call: &mut Call) -> Result<impl io::Read + Send + 'static + use<>> {
    Ok(read_body(call.body()?))
}

/// The body of a request or an answer for a thread that reads it.
pub(crate) fn read_body<B>(body: B) -> impl io::Read + Send + 'static
where
    B: http_body::Body<Data = Bytes, Error = hyper::Error> + Send + Unpin + 'static,
{
    SyncIoBridge::new(StreamReader::new(body.into_data_stream().map_err(io::Error::other)))
}

pub(crate) async fn load(state: &Arc<State>, mut call: Call) -> Result {
    let reader = reader(&mut call)?;
    let loaded = match blocking(state, move |images| images.load(reader)).await {
        Ok(loaded) => loaded,
        // As with Docker an archive is found wrong when the answer has begun.
        Err(error) => {
            let line = json!({ "errorDetail": { "message": error.message }, "error": error.message });
            return Ok(bytes(StatusCode::OK, "application/json", format!("{line}\r\n")));
        }
    };
    let mut lines = String::new();
    for image in loaded {
        let names = image.tags.iter().map(|tag| format!("Loaded image: {}\n", familiar(tag)));
        let named: Vec<String> = names.collect();
        let told = if named.is_empty() { vec![format!("Loaded image ID: {}\n", image.id)] } else { named };
        told.into_iter().for_each(|line| lines += &format!("{}\r\n", json!({ "stream": line })));
        tell(state, "load", &image.id, &image.id);
    }
    Ok(bytes(StatusCode::OK, "application/json", lines))
}

pub(crate) fn save(state: &Arc<State>, names: Vec<String>) -> Result {
    let ids = names.iter().map(|name| Ok(state.daemon.image(name)?.id)).collect::<Result<Vec<_>>>()?;
    for (id, name) in ids.iter().zip(&names) {
        tell(state, "save", id, name);
    }
    let images = Arc::clone(&state.images);
    Ok(written("application/x-tar", move |target| images.save(&names, target).map_err(io::Error::other)))
}

/// A body that a thread writes; an error breaks the connection off, so that nobody takes a part for the whole.
pub(crate) fn written(
    kind: &'static str,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
) -> crate::answer::Answer {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        let mut pieces = io::BufWriter::with_capacity(PIECE, Pieces(sender.clone()));
        if let Err(error) = write(&mut pieces).and_then(|()| pieces.flush()) {
            // The client may have gone, which is the error then.
            let _ = sender.blocking_send(Err(error));
        }
    });
    stream(kind, receiver_stream(receiver))
}

struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(data)));
        sent.map(|()| data.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
