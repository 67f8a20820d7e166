//! Plain requests to the API server as kubectl makes them, and WebSockets through its proxy.

use crate::{SOON, container, pod};
use anyhow::{Context, Result};
use pintle_e2e::{Space, Spawned, run_command, until};
use serde_json::Value;

fn parsed(text: &str) -> Result<Value> {
    serde_json::from_str(text).with_context(|| format!("no JSON: {text}"))
}

pub fn get(space: &Space<'_>, path: &str) -> Result<Value> {
    parsed(&space.ok(&["get", "--raw", path])?)
}

/// Posts an object to a collection.
pub fn create(space: &Space<'_>, path: &str, object: &Value) -> Result<Value> {
    parsed(&space.ok_with(&["create", "--raw", path, "-f", "-"], &object.to_string())?)
}

pub fn replace(space: &Space<'_>, path: &str, object: &Value) -> Result<Value> {
    parsed(&space.ok_with(&["replace", "--raw", path, "-f", "-"], &object.to_string())?)
}

/// Deletes an object, or a collection.
pub fn delete(space: &Space<'_>, path: &str) -> Result<Value> {
    parsed(&space.ok(&["delete", "--raw", path])?)
}

/// Reads an object, changes it and puts it back, again when somebody else was faster.
pub fn update(space: &Space<'_>, path: &str, change: impl Fn(&mut Value)) -> Result<Value> {
    until(&format!("an update of {path}"), SOON, || {
        let mut object = get(space, path)?;
        change(&mut object);
        Ok(Some(replace(space, path, &object)?))
    })
}

/// What became of the objects of a collection since a version of it, as a watch tells it.
pub fn history(space: &Space<'_>, collection: &str, selector: &str, version: &str) -> Result<Vec<Value>> {
    let query = format!("watch=1&timeoutSeconds=1&resourceVersion={version}&labelSelector={selector}");
    let told = space.ok(&["get", "--raw", &format!("{collection}?{query}")])?;
    told.lines().map(parsed).collect()
}

pub fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map(Vec::as_slice).unwrap_or_default()
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A pod that sleeps, with more fields of its spec.
pub fn sleeper(name: &str, more: Value) -> Value {
    pod(name, &[container("c", "exec sleep 3600", Value::Null)], more)
}

/// Waits for an event of a pod with that reason whose message contains the words.
pub fn event(space: &Space<'_>, pod: &str, reason: &str, words: &str) -> Result<()> {
    let selector = format!("reason={reason},involvedObject.name={pod}");
    let told = until(&format!("an event {reason} of {pod}: {words}"), SOON, || {
        let list = space.json(&["events", "--field-selector", &selector])?;
        Ok(items(&list).iter().any(|event| text(&event["message"]).contains(words)).then_some(()))
    });
    told.with_context(|| space.describe())
}

/// `kubectl proxy` for all paths.
pub struct Proxy<'a> {
    space: &'a Space<'a>,
    port: String,
    _running: Spawned,
}

impl<'a> Proxy<'a> {
    pub fn start(space: &'a Space<'a>) -> Result<Self> {
        let running = space.spawn(&["proxy", "--port=0", "--reject-paths=^/nothing"])?;
        let told = running.expect("Starting to serve on 127.0.0.1:", SOON)?;
        let told = told.split("Starting to serve on 127.0.0.1:").nth(1).unwrap_or_default().to_owned();
        let port = told.chars().take_while(char::is_ascii_digit).collect();
        Ok(Self { space, port, _running: running })
    }

    /// Runs a script with the port of the proxy and these words.
    pub fn python(&self, script: &str, words: &[&str]) -> Result<String> {
        let mut python = self.space.cluster.client().command("python3");
        python.args(["-c", script, &self.port]).args(words);
        run_command(python, "")?.ok()
    }

    /// Listens on a WebSocket to its end: the status, the protocol that was settled, and all messages with their kinds.
    pub fn listen(&self, path: &str, protocol: &str) -> Result<Heard> {
        let told = self.python(WEBSOCKET, &[path, protocol])?;
        let told = parsed(&told)?;
        let message = |pair: &Value| (text(&pair[0]), text(&pair[1]));
        let messages = told["messages"].as_array().into_iter().flatten().map(message).collect();
        Ok(Heard { code: told["code"].as_u64().unwrap_or(0), protocol: text(&told["protocol"]), messages })
    }
}

/// What was heard on a WebSocket.
#[derive(Debug)]
pub struct Heard {
    pub code: u64,
    pub protocol: String,
    pub messages: Vec<(String, String)>,
}

const WEBSOCKET: &str = r#"
import base64, json, os, socket, struct, sys
port, path, protocol = sys.argv[1:4]
client = socket.create_connection(("127.0.0.1", int(port)), timeout=60)
lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: Upgrade", "Upgrade: websocket",
    f"Origin: http://127.0.0.1:{port}", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: " + base64.b64encode(os.urandom(16)).decode()]
if protocol: lines.append(f"Sec-WebSocket-Protocol: {protocol}")
client.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
answer = client.makefile("rb")
told = {"code": int(answer.readline().split()[1]), "protocol": "", "messages": []}
for line in iter(answer.readline, b"\r\n"):
    name, _, value = line.decode().partition(":")
    if name.lower() == "sec-websocket-protocol": told["protocol"] = value.strip()
while told["code"] == 101:
    head = answer.read(2)
    if len(head) < 2: break
    size = head[1] & 127
    if size == 126: size, = struct.unpack(">H", answer.read(2))
    elif size == 127: size, = struct.unpack(">Q", answer.read(8))
    kind = {1: "text", 2: "binary", 8: "close"}.get(head[0] & 15, "other")
    told["messages"].append([kind, answer.read(size).decode("latin-1")])
    if kind == "close": break
print(json.dumps(told))
"#;
