//! Gives the kubelet's API its streams from the WebSocket and SPDY server.

use futures::StreamExt;
use futures::stream::BoxStream;
use http::Request;
use hyper::body::Incoming;
use pintle_kubelet::{PortStream, RemoteStreams, StreamError, Streaming, Upgrade, Wants};
use pintle_streaming::{UpgradeError, upgrade_exec, upgrade_port_forward};
use tokio::sync::oneshot;

pub(crate) struct Streams;

fn error(error: UpgradeError) -> StreamError {
    StreamError(error.to_string())
}

impl Streaming for Streams {
    fn exec(&self, request: Request<Incoming>, wants: Wants) -> Result<Upgrade<RemoteStreams>, StreamError> {
        let Wants { stdin, stdout, stderr, tty } = wants;
        let upgraded = upgrade_exec(request, pintle_streaming::Wants { stdin, stdout, stderr, tty }).map_err(error)?;
        let streams = async move {
            let streams = upgraded.streams.await.map_err(error)?;
            let (outcome, told) = oneshot::channel();
            tokio::spawn(async move {
                // Without an outcome, the client sees its streams close.
                if let Ok(status) = told.await {
                    let value = serde_json::to_value(&status).unwrap_or_default();
                    streams.status.send(&value).await;
                }
            });
            Ok(RemoteStreams {
                stdin: streams.stdin,
                stdout: streams.stdout,
                stderr: streams.stderr,
                resize: streams.resize,
                outcome,
            })
        };
        Ok((upgraded.response, Box::pin(streams)))
    }

    fn port_forward(
        &self,
        request: Request<Incoming>,
        _: &[u16],
    ) -> Result<Upgrade<BoxStream<'static, PortStream>>, StreamError> {
        let upgraded = upgrade_port_forward(request).map_err(error)?;
        let connections = async move {
            let forward = upgraded.streams.await.map_err(error)?;
            let next = |mut forward: pintle_streaming::PortForward| async {
                let connection = forward.accept().await?;
                let stream = PortStream { port: connection.port, data: connection.data, error: connection.error };
                Some((stream, forward))
            };
            Ok(futures::stream::unfold(forward, next).boxed())
        };
        Ok((upgraded.response, Box::pin(connections)))
    }
}
