//! Joins a client's streams with those of a container, and the two ends of a forwarded connection.

use pintle_cri::{
    ByteReader, ByteStream, ByteWriter, CriError, ExecRequest, ExecSession, ExitOutcome, Runtime, TerminalSize,
};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

/// How long the start of a program on a terminal waits for the terminal's size.
const FIRST_SIZE_TIMEOUT: Duration = Duration::from_millis(200);

/// What a client gave for an exec or attach.
pub struct ClientStreams {
    pub stdin: Option<ByteReader>,
    pub stdout: Option<ByteWriter>,
    pub stderr: Option<ByteWriter>,
    pub resize: mpsc::Receiver<TerminalSize>,
}

/// Runs a command with a client's streams, to its end.
///
/// # Errors
/// The command can't be run.
pub async fn exec(
    runtime: &dyn Runtime,
    request: ExecRequest,
    mut client: ClientStreams,
) -> Result<ExitOutcome, CriError> {
    let tty = request.tty;
    let size = if tty { first_size(&mut client.resize).await } else { None };
    let started = runtime.exec(ExecRequest { size, ..request }).await;
    if let (Ok(session), Some(size)) = (&started, size) {
        // For a runtime that could not set it before. A process that has ended takes no sizes.
        let _ = session.resize.send(size).await;
    }
    join(started, tty, client).await
}

/// The size that a client tells right after it opened its streams. A program that asks for its size at once, as many
/// do, would be faster than the message otherwise.
async fn first_size(sizes: &mut mpsc::Receiver<TerminalSize>) -> Option<TerminalSize> {
    tokio::time::timeout(FIRST_SIZE_TIMEOUT, sizes.recv()).await.ok().flatten()
}

/// Copies until the process has ended and all of its output is sent.
///
/// # Errors
/// That of the session.
pub async fn join(
    session: Result<ExecSession, CriError>,
    tty: bool,
    client: ClientStreams,
) -> Result<ExitOutcome, CriError> {
    let ClientStreams { stdin: client_in, stdout: client_out, stderr: client_err, resize: mut sizes } = client;
    let ExecSession { stdin, stdout, stderr, resize, exit } = match session {
        Ok(session) => session,
        Err(error) => {
            // Clients over SPDY read these to their ends before they look at the outcome.
            for mut output in [client_out, client_err].into_iter().flatten() {
                // A client that has gone reads nothing.
                let _ = output.shutdown().await;
            }
            return Err(error);
        }
    };
    let input = async {
        if let (Some(mut from), Some(mut to)) = (client_in, stdin) {
            // Either side may close first; the process' end is what counts.
            let _copied = tokio::io::copy(&mut from, &mut to).await;
            let _closed = to.shutdown().await;
        }
        // The end of the input is not the end of the process.
        std::future::pending::<ExitOutcome>().await
    };
    let terminal = async {
        while let Some(size) = sizes.recv().await {
            // A process that has ended takes no sizes; its outcome is about to come.
            if resize.send(size).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        // With a terminal the sizes end when the client has gone; without one they may never have begun.
        if !tty {
            std::future::pending::<()>().await;
        }
    };
    let output = async { tokio::join!(pipe(stdout, client_out), pipe(stderr, client_err), exit).2 };
    tokio::select! {
        result = output => result,
        outcome = input => Ok(outcome),
        () = terminal => Ok(ExitOutcome::Detached),
    }
}

async fn pipe(from: Option<ByteReader>, to: Option<ByteWriter>) {
    if let (Some(mut from), Some(mut to)) = (from, to) {
        // A client that went away stops the copying; the process goes on.
        let _copied = tokio::io::copy(&mut from, &mut to).await;
        let _closed = to.shutdown().await;
    }
}

/// Forwards one connection to a port; a failure is told on `error`.
pub async fn forward(runtime: &dyn Runtime, sandbox: &str, port: u16, mut data: ByteStream, mut error: ByteWriter) {
    let result = match runtime.port_forward(sandbox, port).await {
        Ok(pod) => carry(data, pod).await.map_err(|e| e.to_string()),
        Err(error) => {
            // A client may wait for its end before it looks for an error.
            let _ = data.shutdown().await;
            Err(error.to_string())
        }
    };
    if let Err(why) = result {
        let message = format!("error forwarding port {port} to pod {sandbox}, uid : {why}");
        // The client may be the reason for the failure.
        let _ = error.write_all(message.as_bytes()).await;
    }
    // The same.
    let _ = error.shutdown().await;
}

/// Carries bytes both ways until the pod has said all. The client learns from the end of its streams that it is over,
/// and only then ends its own side: waiting for that would be waiting for each other.
async fn carry(client: ByteStream, pod: ByteStream) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_pod, mut to_pod) = tokio::io::split(pod);
    let asking = async {
        tokio::io::copy(&mut from_client, &mut to_pod).await?;
        to_pod.shutdown().await
    };
    let answering = async {
        tokio::io::copy(&mut from_pod, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::pin!(asking, answering);
    tokio::select! {
        answered = &mut answering => answered,
        asked = &mut asking => match asked {
            Ok(()) => answering.await,
            failed => failed,
        },
    }
}
