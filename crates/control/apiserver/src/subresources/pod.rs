//! `log`, `exec`, `attach` and `portforward` of pods: checked here, done by the kubelet of the pod's node.

use super::upgrade::{failure_of, is_upgrade, pass};
use super::{connect, kubelet, renamed};
use crate::authorization::{Attributes, attributes_of};
use crate::resources::Target;
use crate::response::{Answer, text};
use crate::websocket::{Handshake, is_websocket, refused};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use pintle_client::{BoxError, empty_body};
use pintle_types::Status;
use pintle_types::field::{ErrorList, FieldError, Path};
use pintle_types::names::GroupKind;
use serde_json::{Value, json};
use std::future::ready;

/// What is read of a kubelet's error.
const MAX_ERROR_BYTES: usize = 64 * 1024;

async fn pod_of(target: &Target<'_>) -> Result<Value, Box<Status>> {
    target.call.server.core_object("pods", &target.path.namespace, &target.path.name).await
}

fn names<'a>(pod: &'a Value, list: &str) -> Vec<&'a str> {
    pod["spec"][list].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect()
}

/// The container that is meant: the one named, or the only one.
fn container(pod: &Value, wanted: &str) -> Result<String, Box<Status>> {
    let (containers, init) = (names(pod, "containers"), names(pod, "initContainers"));
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let bad = |message: String| Err(Box::new(Status::bad_request(message)));
    if !wanted.is_empty() {
        let known = containers.contains(&wanted) || init.contains(&wanted);
        if known || names(pod, "ephemeralContainers").contains(&wanted) {
            return Ok(wanted.to_owned());
        }
        return bad(format!("container {wanted} is not valid for pod {name}"));
    }
    match containers.as_slice() {
        [] => bad(format!("a container name must be specified for pod {name}")),
        [only] => Ok((*only).to_owned()),
        many => {
            let mut message =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", many.join(" "));
            if !init.is_empty() {
                message += &format!(" or one of the init containers: [{}]", init.join(" "));
            }
            bad(message)
        }
    }
}

fn node_of(pod: &Value) -> Option<&str> {
    pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty())
}

/// The last part of a container's path on the kubelet: namespace, pod, container.
fn kubelet_path(target: &Target<'_>, verb: &str, container: Option<&str>) -> String {
    let mut path = format!("/{verb}/{}/{}", target.path.namespace, target.path.name);
    if let Some(container) = container {
        path.push('/');
        path.push_str(container);
    }
    path
}

const LOG_PARAMETERS: [&str; 8] =
    ["follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream"];

pub(super) async fn log(target: &Target<'_>) -> Answer {
    check_log_options(target)?;
    let pod = pod_of(target).await?;
    let container = container(&pod, target.call.query.text("container"))?;
    let Some(node) = node_of(&pod) else { return Ok(text(StatusCode::OK, "")) };
    let mut query = Vec::new();
    for name in LOG_PARAMETERS {
        renamed(target.call, name, name, &mut query);
    }
    let server = &target.call.server;
    let address = kubelet::address_of(server, node).await?;
    let uri = kubelet::path_and_query(&kubelet_path(target, "containerLogs", Some(&container)), &query);
    let mut kubelet = kubelet::connect(server, address).await?;
    let request = Request::get(uri)
        .header(http::header::HOST, address.to_string())
        .body(empty_body())
        .map_err(|e| Box::new(Status::internal(e)))?;
    let answer = kubelet.send_request(request).await.map_err(|e| kubelet::unreachable(address, e))?;
    let (parts, body) = answer.into_parts();
    if parts.status != StatusCode::OK {
        let body = Limited::new(body, MAX_ERROR_BYTES).collect().await;
        let words = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned()).unwrap_or_default();
        return Err(Box::new(failure_of(parts.status.as_u16(), words.trim_end())));
    }
    // The sender lives as long as the body: without it the connection would be closed while the log goes on.
    let body = body.map_err(move |e| {
        let _alive = &kubelet;
        BoxError::from(e)
    });
    if is_websocket(&target.call.headers) {
        return over_websocket(target, body);
    }
    let mut response = Response::new(pintle_client::Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// The log as messages. The first one is empty, as upstream's is: it tells a client that the log was found.
fn over_websocket(target: &Target<'_>, body: impl Body<Data = Bytes, Error = BoxError> + Send + 'static) -> Answer {
    let handshake = match Handshake::for_bytes(&target.call.headers) {
        Ok(handshake) => handshake,
        Err(code) => return Ok(refused(code)),
    };
    let form = handshake.form;
    let parts = body.into_data_stream().scan((), |(), part| ready(part.ok()));
    let messages = stream::once(ready(Bytes::new())).chain(parts).map(move |bytes| form.message(bytes));
    handshake.serve(target.call, messages)
}

fn check_log_options(target: &Target<'_>) -> Result<(), Box<Status>> {
    let query = &target.call.query;
    let mut errors = ErrorList::new();
    for (name, least) in [("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)] {
        if let Some(number) = query.number(name)?.filter(|n| *n < least) {
            let detail = format!("must be greater than {}", if least == 0 { "or equal to 0" } else { "0" });
            errors.push(FieldError::invalid(&Path::new(name), number, &detail));
        }
    }
    if query.has("sinceSeconds") && query.has("sinceTime") {
        let path = Path::new("sinceSeconds");
        errors.push(FieldError::forbidden(&path, "at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    if errors.is_empty() {
        return Ok(());
    }
    let kind = GroupKind { group: String::new(), kind: "PodLogOptions".into() };
    Err(Box::new(Status::invalid(&kind, &target.path.name, &errors)))
}

const STREAMS: [&str; 4] = ["stdin", "stdout", "stderr", "tty"];

pub(super) async fn exec(target: &Target<'_>) -> Answer {
    let options = connect::admit(target, connect::options(target, &STREAMS, &["container"], &["command"])).await?;
    let command = options["command"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let query: Vec<_> = command.map(|word| ("command".to_owned(), word.to_owned())).collect();
    if query.is_empty() {
        return Err(Box::new(Status::bad_request("you must specify at least 1 command for the container")));
    }
    streams(target, "exec", &options, query).await
}

pub(super) async fn attach(target: &Target<'_>) -> Answer {
    let options = connect::admit(target, connect::options(target, &STREAMS, &["container"], &[])).await?;
    streams(target, "attach", &options, Vec::new()).await
}

/// The kubelet's names of the streams, with upstream's rule for a terminal: it has no error stream of its own.
async fn streams(target: &Target<'_>, verb: &str, options: &Value, mut query: Vec<(String, String)>) -> Answer {
    let flags = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];
    let on: Vec<_> = flags.iter().filter(|(from, _)| options[*from] == true).collect();
    if !on.iter().any(|(from, _)| *from != "tty") {
        return Err(Box::new(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr")));
    }
    query.extend(on.iter().map(|(_, to)| ((*to).to_owned(), "1".to_owned())));
    let pod = pod_of(target).await?;
    let container = container(&pod, options["container"].as_str().unwrap_or_default())?;
    open(target, &pod, &kubelet_path(target, verb, Some(&container)), &query).await
}

pub(super) async fn port_forward(target: &Target<'_>) -> Answer {
    let mut query = Vec::new();
    renamed(target.call, "ports", "port", &mut query);
    let ports: Vec<i64> = query.iter().filter_map(|(_, port)| port.parse().ok()).collect();
    let options = if ports.is_empty() { json!({}) } else { json!({"ports": ports}) };
    connect::admit(target, options).await?;
    let pod = pod_of(target).await?;
    open(target, &pod, &kubelet_path(target, "portForward", None), &query).await
}

/// WebSockets begin with a GET, but what they do is more than reading: the right to create is needed for them too, as
/// upstream has it since v1.35.
async fn check_right(target: &Target<'_>) -> Result<(), Box<Status>> {
    let call = target.call;
    call.server.authorizer.check(&call.user, &Attributes { verb: "create", ..attributes_of(&call.info) }).await
}

async fn open(target: &Target<'_>, pod: &Value, path: &str, query: &[(String, String)]) -> Answer {
    check_right(target).await?;
    let Some(node) = node_of(pod) else {
        let message = format!("pod {} does not have a host assigned", target.path.name);
        return Err(Box::new(Status::bad_request(message)));
    };
    if !is_upgrade(&target.call.headers) {
        return Err(Box::new(Status::bad_request("Upgrade request required")));
    }
    let server = &target.call.server;
    let address = kubelet::address_of(server, node).await?;
    let backend = kubelet::connect(server, address).await?;
    pass(target.call, backend, address, &kubelet::path_and_query(path, query)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: Value, wanted: &str, expected: &str) {
        let pod = json!({"metadata": {"name": "x"}, "spec": spec});
        let got = container(&pod, wanted).unwrap_or_else(|s| s.message.clone());
        assert_eq!(got, expected);
    }

    #[test]
    fn containers_are_defaulted_and_checked_as_upstream_does() {
        let two = json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]});
        check(json!({"containers": [{"name": "a"}]}), "", "a");
        check(two.clone(), "i", "i");
        check(two.clone(), "c", "container c is not valid for pod x");
        check(
            two,
            "",
            "a container name must be specified for pod x, choose one of: [a b] or one of the init containers: [i]",
        );
    }
}
