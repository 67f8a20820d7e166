//! Port-forward: a pair of streams, data and error, for each connection that the client forwards.

use crate::pipe::{self, Joined};
use crate::upgrade::{Carrier, Connection, UpgradeError, carrier, negotiate, switch};
use crate::{Upgraded, channels, spdy, tunnel};
use http::Request;
use pintle_cri::{ByteStream, ByteWriter};
use std::collections::HashMap;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNELS: [&str; 2] = ["v4.channel.k8s.io", "portforward.k8s.io"];
const SPDY_PROTOCOLS: [&str; 1] = ["portforward.k8s.io"];
/// Ports of one request over the channel protocol: two channels each, numbered by a byte.
const MAX_PORTS: usize = 100;
/// Connections whose second stream has not come yet.
const MAX_HALF_OPEN: usize = 1024;

/// One forwarded connection.
pub struct PortStream {
    pub port: u16,
    pub data: ByteStream,
    /// A text here tells the client what went wrong.
    pub error: ByteWriter,
}

/// Forwarded connections as the client makes them; nothing more comes when it has gone.
pub struct PortForward {
    connections: mpsc::Receiver<PortStream>,
}

impl PortForward {
    pub async fn accept(&mut self) -> Option<PortStream> {
        self.connections.recv().await
    }
}

/// Answers a port-forward request. Over the channel protocol the ports come from the query (`ports=80,81`).
pub fn upgrade_port_forward<B>(request: Request<B>) -> Result<Upgraded<PortForward>, UpgradeError> {
    let carrier = carrier(request.headers())?;
    if carrier == Carrier::Spdy {
        let protocol = negotiate(request.headers(), carrier, &SPDY_PROTOCOLS)?;
        return switch(request, carrier, protocol, |c| async { Ok(over_spdy(spdy::serve(c))) });
    }
    let known = [TUNNEL, CHANNELS[0], CHANNELS[1]];
    let protocol = negotiate(request.headers(), carrier, &known)?;
    if protocol == TUNNEL {
        return switch(request, carrier, protocol, |c| async {
            let socket = channels::websocket(c).await;
            Ok(over_spdy(spdy::serve(tunnel::bytes_over(socket))))
        });
    }
    let ports = ports_of_query(request.uri().query().unwrap_or_default())?;
    switch(request, carrier, protocol, move |c| over_channels(c, ports))
}

/// Pairs the data and error streams of each connection by their request ids.
fn over_spdy(mut session: spdy::Session) -> PortForward {
    let (sender, connections) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut halves: HashMap<String, spdy::Stream> = HashMap::new();
        while let Some(stream) = session.accept().await {
            let key = stream.header("requestid").unwrap_or_default().to_owned();
            let Some(other) = halves.remove(&key) else {
                if halves.len() < MAX_HALF_OPEN {
                    halves.insert(key, stream);
                }
                continue;
            };
            let Some(connection) = pair(stream, other) else { continue };
            if sender.send(connection).await.is_err() {
                return;
            }
        }
    });
    PortForward { connections }
}

fn pair(a: spdy::Stream, b: spdy::Stream) -> Option<PortStream> {
    let (data, error) = match (a.header("streamtype")?, b.header("streamtype")?) {
        ("data", "error") => (a, b),
        ("error", "data") => (b, a),
        _ => return None,
    };
    let port = data.header("port")?.parse().ok()?;
    Some(PortStream { port, data: Box::new(Joined { reader: data.reader, writer: data.writer }), error: error.writer })
}

fn ports_of_query(query: &str) -> Result<Vec<u16>, UpgradeError> {
    // Clients say `ports`; API servers pass it on as `port`.
    let lists = query.split('&').filter_map(|pair| pair.strip_prefix("ports=").or_else(|| pair.strip_prefix("port=")));
    let texts = lists.flat_map(|list| list.split(',').flat_map(|part| part.split("%2C")));
    let ports: Result<Vec<u16>, _> = texts.map(str::parse::<u16>).collect();
    match ports {
        Ok(ports) if !ports.is_empty() && ports.len() <= MAX_PORTS && !ports.contains(&0) => Ok(ports),
        _ => Err(UpgradeError::BadRequest(format!(
            "query parameter \"ports\" must name 1 to {MAX_PORTS} ports: {query:?}"
        ))),
    }
}

/// Each port has two channels, data and error, whose first message from the server is the port's number.
async fn over_channels(connection: Connection, ports: Vec<u16>) -> Result<PortForward, UpgradeError> {
    let mut inputs = HashMap::new();
    let readers: Vec<_> = (0..ports.len())
        .map(|i| {
            let (sender, reader) = pipe::reader();
            inputs.insert((2 * i) as u8, sender);
            reader
        })
        .collect();
    let out = channels::serve(channels::websocket(connection).await, inputs, Duration::ZERO);
    let (sender, connections) = mpsc::channel(ports.len());
    for (i, (port, reader)) in ports.into_iter().zip(readers).enumerate() {
        let (mut data, mut error) =
            (pipe::writer(2 * i as u32, out.clone()), pipe::writer(2 * i as u32 + 1, out.clone()));
        for writer in [&mut data, &mut error] {
            writer.write_all(&port.to_le_bytes()).await.map_err(|e| UpgradeError::Broken(e.to_string()))?;
        }
        let stream = PortStream { port, data: Box::new(Joined { reader, writer: data }), error };
        sender.send(stream).await.map_err(|e| UpgradeError::Broken(e.to_string()))?;
    }
    Ok(PortForward { connections })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_come_from_the_query() {
        for (query, expected) in [
            ("ports=80", Some(vec![80])),
            ("a=b&ports=80,443", Some(vec![80, 443])),
            ("port=80&port=443", Some(vec![80, 443])),
            ("ports=80%2C443&ports=5", Some(vec![80, 443, 5])),
            ("", None),
            ("ports=0", None),
            ("ports=70000", None),
            ("ports=x", None),
        ] {
            assert_eq!(ports_of_query(query).ok(), expected, "{query}");
        }
    }
}
