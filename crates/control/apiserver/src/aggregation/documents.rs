//! What other servers say of their schemas: where their OpenAPI v3 documents are, and their v2 documents.

use super::proxy::{add_user, address};
use crate::server::Server;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use parking_lot::Mutex;
use pintle_aggregator::Known;
use pintle_auth::User;
use pintle_client::empty_body;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer is used before the server is asked again.
const FRESH: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(5);
const MAX_BYTES: usize = 16 << 20;

/// The answers of other servers, by APIService and path.
#[derive(Default)]
pub(crate) struct Documents(Mutex<HashMap<(String, &'static str), Kept>>);

#[derive(Clone)]
struct Kept {
    at: Instant,
    tag: Option<HeaderValue>,
    body: Option<Arc<Value>>,
}

/// A group and version of another server, and its document there: `/openapi/v3/apis/G/V?hash=…`.
pub(crate) struct Place {
    pub path: String,
    pub url: String,
}

/// The v3 documents of all servers that are available and have any.
pub(crate) async fn v3_places(server: &Server) -> Vec<Place> {
    let asked =
        server.aggregation.others.all().into_iter().filter(|known| known.is_available()).map(|known| async move {
            let path = format!("apis/{}/{}", known.spec.group, known.spec.version);
            let index = get(server, &known, "/openapi/v3").await?;
            let url = index["paths"][&path]["serverRelativeURL"].as_str()?.to_owned();
            Some(Place { path, url })
        });
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}

/// The v2 documents of all servers that are available and have one, with their group and version.
pub(crate) async fn v2_documents(server: &Server) -> Vec<(String, Arc<Value>)> {
    let asked =
        server.aggregation.others.all().into_iter().filter(|known| known.is_available()).map(|known| async move {
            let document = get(server, &known, "/openapi/v2").await?;
            Some((format!("/apis/{}/{}", known.spec.group, known.spec.version), document))
        });
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}

/// A document of another server; none when it has none or can't be reached.
async fn get(server: &Server, known: &Known, path: &'static str) -> Option<Arc<Value>> {
    let key = (known.spec.name.clone(), path);
    let kept = server.aggregation.documents.0.lock().get(&key).cloned();
    if let Some(kept) = kept.as_ref().filter(|kept| kept.at.elapsed() < FRESH) {
        return kept.body.clone();
    }
    let tag = kept.as_ref().and_then(|kept| kept.tag.clone());
    let body = match ask(server, known, path, tag).await {
        Some((tag, Some(bytes))) => {
            let body = serde_json::from_slice(&bytes).ok().map(Arc::new);
            Kept { at: Instant::now(), tag, body }
        }
        Some((tag, None)) => Kept { at: Instant::now(), tag, body: kept.and_then(|kept| kept.body) },
        None => Kept { at: Instant::now(), tag: None, body: None },
    };
    let found = body.body.clone();
    let mut all = server.aggregation.documents.0.lock();
    all.retain(|(name, _), _| server.aggregation.others.all().iter().any(|k| k.spec.name == *name));
    all.insert(key, body);
    found
}

/// The tag and the body, which is missing when it is that of the tag that was sent.
async fn ask(
    server: &Server,
    known: &Known,
    path: &str,
    tag: Option<HeaderValue>,
) -> Option<(Option<HeaderValue>, Option<Bytes>)> {
    let remote = known.remote.as_ref().ok()?;
    let address = address(server, known).await?;
    let mut headers = HeaderMap::new();
    add_user(&mut headers, &User::new("system:aggregator", &["system:masters"]));
    headers.insert(http::header::ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(tag) = &tag {
        headers.insert(http::header::IF_NONE_MATCH, tag.clone());
    }
    let mut request = Request::new(empty_body());
    *request.uri_mut() = path.parse().ok()?;
    *request.headers_mut() = headers;
    let answer = remote.fetch(&address, request, MAX_BYTES, PATIENCE).await.ok()?;
    match answer.status().as_u16() {
        304 => Some((tag, None)),
        200 => Some((answer.headers().get(http::header::ETAG).cloned(), Some(answer.into_body()))),
        _ => None,
    }
}
