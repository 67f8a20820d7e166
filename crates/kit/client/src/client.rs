//! The verbs, typed by kind at the edge and plain bytes below.

use crate::error::{ClientError, unless_missing};
use crate::options::{DeleteOptions, ListOptions, Patch, PatchOptions, WatchOptions};
use crate::path::{Query, resource_path};
use crate::transport::{Body, Transport, TransportError, collect};
use crate::watch::{RawWatch, Watch};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use pintle_types::{Kind, Reason, Status};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// Longest answer taken, in bytes; lists come in pages far smaller.
const MAX_ANSWER_BYTES: usize = 256 << 20;
const JSON: &str = "application/json";
/// A question that got no answer is asked again this soon.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Asks one API server on behalf of one identity. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    user_agent: HeaderValue,
    timeout: Duration,
}

/// All objects of a list.
#[derive(Clone, Debug)]
pub struct List<K> {
    pub items: Vec<K>,
    /// The version to watch from.
    pub resource_version: String,
}

/// One page of a list, its items undecoded.
#[derive(Clone, Debug)]
pub struct RawPage {
    pub items: Vec<Bytes>,
    pub resource_version: String,
    /// The token of the next page; empty on the last.
    pub continue_token: String,
}

#[derive(Deserialize)]
struct PageBody<'a> {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    continue_token: Option<String>,
}

impl RawPage {
    fn parse(body: &Bytes) -> Result<Self, ClientError> {
        let parsed: PageBody = serde_json::from_slice(body)?;
        let items = parsed.items.unwrap_or_default();
        Ok(Self {
            items: items.iter().map(|item| body.slice_ref(item.get().as_bytes())).collect(),
            resource_version: parsed.metadata.resource_version,
            continue_token: parsed.metadata.continue_token.unwrap_or_default(),
        })
    }
}

/// Where an object or a collection of a kind is.
fn path_of<K: Kind>(namespace: &str, name: &str, subresource: &str) -> String {
    let namespace = if K::NAMESPACED { namespace } else { "" };
    resource_path(K::GROUP, K::VERSION, K::plural(), namespace, name, subresource)
}

impl Client {
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        let user_agent = HeaderValue::from_static(concat!("pintle/", env!("CARGO_PKG_VERSION")));
        Self { transport, user_agent, timeout: Duration::from_secs(60) }
    }

    /// Another name for the `User-Agent` header, whose part before the slash becomes the field manager.
    pub fn with_user_agent(mut self, name: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(name) {
            self.user_agent = value;
        }
        self
    }

    /// How long a request may take until its whole answer is there; for a watch, until it begins.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Reads one object.
    pub async fn get<K: Kind>(&self, namespace: &str, name: &str) -> Result<K, ClientError> {
        Ok(K::decode(&self.send(Method::GET, &path_of::<K>(namespace, name, ""), "", Bytes::new()).await?)?)
    }

    /// Reads one object, or nothing when there is none.
    pub async fn get_opt<K: Kind>(&self, namespace: &str, name: &str) -> Result<Option<K>, ClientError> {
        unless_missing(self.get(namespace, name).await)
    }

    /// Reads all objects of a namespace, or of all namespaces when it is empty, page by page.
    pub async fn list<K: Kind>(&self, namespace: &str, options: &ListOptions) -> Result<List<K>, ClientError> {
        let path = path_of::<K>(namespace, "", "");
        let mut list = List { items: Vec::new(), resource_version: String::new() };
        let mut token = String::new();
        loop {
            let page = self.list_page(&path, options, &token, JSON).await?;
            for item in &page.items {
                list.items.push(K::decode(item)?);
            }
            list.resource_version = page.resource_version;
            token = page.continue_token;
            if token.is_empty() {
                return Ok(list);
            }
        }
    }

    /// One page of the collection at a path; `token` is the page before's, empty for the first.
    pub async fn list_page(
        &self,
        path: &str,
        options: &ListOptions,
        token: &str,
        accept: &str,
    ) -> Result<RawPage, ClientError> {
        let mut query = Query::new(path);
        options.write(&mut query, token);
        let request = self.request(Method::GET, &query.uri(), accept, "", Bytes::new())?;
        RawPage::parse(&self.answer(request).await?)
    }

    /// Creates an object, and returns it as the server made it.
    pub async fn create<K: Kind>(&self, object: &K) -> Result<K, ClientError> {
        let path = path_of::<K>(object.namespace(), "", "");
        Ok(K::decode(&self.send(Method::POST, &path, JSON, object.encode().into()).await?)?)
    }

    /// Creates a subresource of an object, such as `binding`, `eviction` or `token`.
    pub async fn create_sub<K: Kind>(
        &self,
        namespace: &str,
        name: &str,
        subresource: &str,
        body: &Value,
    ) -> Result<Value, ClientError> {
        self.json(Method::POST, &path_of::<K>(namespace, name, subresource), Some(body)).await
    }

    /// Replaces an object; its resourceVersion must be the newest, unless it has none.
    pub async fn update<K: Kind>(&self, object: &K) -> Result<K, ClientError> {
        self.update_sub(object, "").await
    }

    /// Replaces an object's status.
    pub async fn update_status<K: Kind>(&self, object: &K) -> Result<K, ClientError> {
        self.update_sub(object, "status").await
    }

    /// Replaces a subresource that has the kind of its object, such as `status` or `finalize`.
    pub async fn update_sub<K: Kind>(&self, object: &K, subresource: &str) -> Result<K, ClientError> {
        let path = path_of::<K>(object.namespace(), object.name(), subresource);
        Ok(K::decode(&self.send(Method::PUT, &path, JSON, object.encode().into()).await?)?)
    }

    /// Changes an object.
    pub async fn patch<K: Kind>(
        &self,
        namespace: &str,
        name: &str,
        patch: Patch,
        options: &PatchOptions,
    ) -> Result<K, ClientError> {
        let path = path_of::<K>(namespace, name, &options.subresource);
        Ok(K::decode(&self.patch_path(&path, &patch, options).await?)?)
    }

    /// Changes the object at a path, and returns its bytes. The options' subresource is taken to be in the path.
    pub async fn patch_path(&self, path: &str, patch: &Patch, options: &PatchOptions) -> Result<Bytes, ClientError> {
        let mut query = Query::new(path);
        query.add("fieldManager", &options.field_manager);
        if options.force {
            query.add("force", "true");
        }
        self.send(Method::PATCH, &query.uri(), patch.content_type(), patch.value().to_string().into()).await
    }

    /// Asks for an object's deletion; it may live on until its grace period or finalizers are over.
    pub async fn delete<K: Kind>(
        &self,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<(), ClientError> {
        self.delete_path(&path_of::<K>(namespace, name, ""), options).await
    }

    /// Asks for the deletion of what is at a path: an object, or a whole collection.
    pub async fn delete_path(&self, path: &str, options: &DeleteOptions) -> Result<(), ClientError> {
        self.send(Method::DELETE, path, JSON, options.body().into()).await.map(drop)
    }

    /// Watches a kind in a namespace, or in all when it is empty.
    pub async fn watch<K: Kind>(&self, namespace: &str, options: &WatchOptions) -> Result<Watch<K>, ClientError> {
        Ok(Watch::new(self.watch_path(&path_of::<K>(namespace, "", ""), options, JSON).await?))
    }

    /// Watches the collection at a path.
    pub async fn watch_path(&self, path: &str, options: &WatchOptions, accept: &str) -> Result<RawWatch, ClientError> {
        let mut query = Query::new(path);
        options.write(&mut query);
        let request = self.request(Method::GET, &query.uri(), accept, "", Bytes::new())?;
        let response = self.begin(request).await?;
        if response.status().is_success() {
            return Ok(RawWatch::new(response.into_body()));
        }
        let code = response.status();
        Err(refusal(code, &self.read(response).await?).into())
    }

    /// Reads what is at a path, in the form that `accept` asks for.
    pub async fn get_path(&self, path: &str, accept: &str) -> Result<Bytes, ClientError> {
        self.answer(self.request(Method::GET, path, accept, "", Bytes::new())?).await
    }

    /// Whether something is at a path of discovery, such as `/apis/batch/v1`: a server serves the same built-in versions
    /// as long as it runs. Asks until there is an answer.
    pub async fn serves(&self, path: &str) -> bool {
        loop {
            match self.get_path(path, JSON).await {
                Ok(_) => return true,
                Err(error) if error.status().is_some_and(|status| status.code == 404) => return false,
                Err(_) => tokio::time::sleep(ASK_AGAIN).await,
            }
        }
    }

    /// Sends JSON to any path, and reads JSON.
    pub async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        let content_type = if body.is_some() { JSON } else { "" };
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        Ok(serde_json::from_slice(&self.send(method, path, content_type, bytes).await?)?)
    }

    /// Sends any request; what the server answers is for the caller to judge, and there is no time limit.
    pub async fn raw(&self, mut request: Request<Bytes>) -> Result<Response<Body>, ClientError> {
        request.headers_mut().entry(USER_AGENT).or_insert_with(|| self.user_agent.clone());
        Ok(self.transport.call(request).await?)
    }

    fn request(
        &self,
        method: Method,
        uri: &str,
        accept: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Request<Bytes>, ClientError> {
        let mut request = Request::builder().method(method).uri(uri).header(ACCEPT, accept);
        if !content_type.is_empty() {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let request = request.header(USER_AGENT, self.user_agent.clone()).body(body);
        request.map_err(|error| TransportError::caused(format!("{uri} is no address"), error).into())
    }

    async fn send(&self, method: Method, uri: &str, content_type: &str, body: Bytes) -> Result<Bytes, ClientError> {
        self.answer(self.request(method, uri, JSON, content_type, body)?).await
    }

    /// The whole body of a successful answer.
    async fn answer(&self, request: Request<Bytes>) -> Result<Bytes, ClientError> {
        let response = self.begin(request).await?;
        let code = response.status();
        let body = self.read(response).await?;
        if code.is_success() { Ok(body) } else { Err(refusal(code, &body).into()) }
    }

    async fn begin(&self, request: Request<Bytes>) -> Result<Response<Body>, ClientError> {
        let what = format!("{} {}", request.method(), request.uri().path());
        match tokio::time::timeout(self.timeout, self.transport.call(request)).await {
            Ok(response) => Ok(response?),
            Err(_) => Err(TransportError::new(format!("{what}: no answer within {:?}", self.timeout)).into()),
        }
    }

    async fn read(&self, response: Response<Body>) -> Result<Bytes, ClientError> {
        match tokio::time::timeout(self.timeout, collect(response.into_body(), MAX_ANSWER_BYTES)).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(error)) => Err(TransportError::caused("the answer broke off", error).into()),
            Err(_) => Err(TransportError::new(format!("the answer did not end within {:?}", self.timeout)).into()),
        }
    }
}

/// The status that an unsuccessful answer carries, or one made from its code.
fn refusal(code: StatusCode, body: &[u8]) -> Status {
    if let Ok(status) = serde_json::from_slice::<Status>(body)
        && status.kind == "Status"
    {
        return status;
    }
    let reason = match code {
        StatusCode::UNAUTHORIZED => Reason::Unauthorized,
        StatusCode::FORBIDDEN => Reason::Forbidden,
        StatusCode::NOT_FOUND => Reason::NotFound,
        StatusCode::CONFLICT => Reason::Conflict,
        StatusCode::GONE => Reason::Gone,
        StatusCode::TOO_MANY_REQUESTS => Reason::TooManyRequests,
        StatusCode::SERVICE_UNAVAILABLE => Reason::ServiceUnavailable,
        _ => Reason::Unknown,
    };
    let text: Cow<'_, str> = String::from_utf8_lossy(&body[..body.len().min(512)]);
    Status::failure(code.as_u16(), reason, format!("the server answered {code}: {}", text.trim()))
}
