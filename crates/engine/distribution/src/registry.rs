//! One repository of a registry: its address, the credentials for it, and requests with both.

use crate::authorization::{self, Challenge};
use crate::connection::{Connector, Outgoing};
use crate::error::{Error, Result};
use crate::{Credentials, Options, stream};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{Method, Response};
use hyper::body::Incoming;
use pintle_image::Reference;
use std::sync::Mutex;

/// The longest error answer that is read, in bytes.
const MAX_ERROR: usize = 1 << 20;

/// A repository's registry.
pub struct Registry {
    connector: Connector,
    credentials: Credentials,
    /// `https://host[:port]`
    base: String,
    pub(crate) repository: String,
    /// What the credentials are asked for: `pull`, or `pull,push`.
    actions: &'static str,
    /// The value of the header that was right last.
    authorization: Mutex<Option<String>>,
    /// Repositories that blobs may be mounted from.
    pub(crate) also_pull: Mutex<Vec<String>>,
}

impl Registry {
    /// Finds out how the registry of a reference is spoken to.
    ///
    /// # Errors
    /// When it does not answer, or refuses the credentials.
    pub async fn open(reference: &Reference, credentials: Credentials, options: &Options, push: bool) -> Result<Self> {
        let host = if reference.registry == "docker.io" { "registry-1.docker.io" } else { &reference.registry };
        let connector = Connector::new(options.trust.clone(), &options.insecure);
        let mut bases = vec![format!("https://{host}")];
        if connector.is_insecure(host) {
            bases.push(format!("http://{host}"));
        }
        let mut last = Error::Invalid("no registry to ask".into());
        for base in bases {
            match Self::open_at(connector.clone(), base, reference, credentials.clone(), push).await {
                Ok(registry) => return Ok(registry),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The same at a mirror, which wants no credentials of ours.
    pub(crate) async fn open_mirror(base: &str, reference: &Reference, options: &Options) -> Result<Self> {
        let connector = Connector::new(options.trust.clone(), &options.insecure);
        let base = base.trim_end_matches('/').to_owned();
        Self::open_at(connector, base, reference, Credentials::default(), false).await
    }

    async fn open_at(
        connector: Connector,
        base: String,
        reference: &Reference,
        credentials: Credentials,
        push: bool,
    ) -> Result<Self> {
        let registry = Self {
            connector,
            credentials,
            base,
            repository: reference.repository.clone(),
            actions: if push { "pull,push" } else { "pull" },
            authorization: Mutex::default(),
            also_pull: Mutex::default(),
        };
        match registry.ping().await {
            // The daemon asks for the manifest before it thinks of credentials, and says so.
            Err(Error::Refused { status: 401, code, message }) if !push && !registry.repository.is_empty() => {
                let tag = reference.digest.as_deref().or(reference.tag.as_deref()).unwrap_or("latest");
                let message = format!("Head {:?}: {message}", registry.url(&format!("manifests/{tag}")));
                Err(Error::Refused { status: 401, code, message })
            }
            other => other.map(|()| registry),
        }
    }

    /// Checks credentials only, as `docker login` does.
    pub async fn login(host: &str, credentials: Credentials, options: &Options) -> Result<()> {
        let reference = Reference { registry: host.to_owned(), repository: String::new(), tag: None, digest: None };
        Self::open(&reference, credentials, options, false).await.map(drop)
    }

    /// Asks for `/v2/`; a challenge is answered, so that later requests carry the answer.
    async fn ping(&self) -> Result<()> {
        let url = format!("{}/v2/", self.base);
        let answer = self.connector.send(Outgoing::new(Method::GET, &url)).await?;
        match answer.status().as_u16() {
            200 => Ok(()),
            401 => self.answer_challenge(&answer).await,
            status => {
                let bytes = stream::collect(answer, MAX_ERROR).await?;
                Err(refusal(status, &bytes))
            }
        }
    }

    async fn answer_challenge(&self, answer: &Response<Incoming>) -> Result<()> {
        let headers = answer.headers().get_all(WWW_AUTHENTICATE);
        let challenges: Vec<Challenge> =
            headers.iter().filter_map(|h| h.to_str().ok()).filter_map(Challenge::parse).collect();
        let no_credentials =
            || Error::Refused { status: 401, code: "UNAUTHORIZED".into(), message: "no basic auth credentials".into() };
        let value = if !self.credentials.registry_token.is_empty() {
            format!("Bearer {}", self.credentials.registry_token)
        } else if let Some(bearer) = challenges.iter().find(|c| matches!(c, Challenge::Bearer { .. })) {
            let token = authorization::token(&self.connector, bearer, &self.scopes(), &self.credentials).await?;
            format!("Bearer {token}")
        } else if challenges.contains(&Challenge::Basic) {
            authorization::basic(&self.credentials).ok_or_else(no_credentials)?
        } else {
            return Err(no_credentials());
        };
        if self.repository.is_empty() && value.starts_with("Basic") {
            self.check_basic(&value).await?;
        }
        *self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(value);
        Ok(())
    }

    async fn check_basic(&self, value: &str) -> Result<()> {
        let request = Outgoing::new(Method::GET, format!("{}/v2/", self.base)).header(AUTHORIZATION, value);
        let answer = self.connector.send(request).await?;
        if answer.status() == 200 {
            return Ok(());
        }
        let (status, code) = (answer.status(), "UNAUTHORIZED".to_owned());
        let message = format!("login attempt to {}/v2/ failed with status: {status}", self.base);
        Err(Error::Refused { status: status.as_u16(), code, message })
    }

    fn scopes(&self) -> Vec<String> {
        if self.repository.is_empty() {
            return Vec::new();
        }
        let also = self.also_pull.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let own = format!("repository:{}:{}", self.repository, self.actions);
        std::iter::once(own).chain(also.iter().map(|name| format!("repository:{name}:pull"))).collect()
    }

    /// The address of something of this repository.
    pub(crate) fn url(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.base, self.repository)
    }

    /// An address that the registry gave.
    pub(crate) fn location(&self, answer: &Response<Incoming>) -> Result<String> {
        let location = answer.headers().get(http::header::LOCATION).and_then(|l| l.to_str().ok());
        let location = location.ok_or_else(|| Error::Invalid("the registry gave no location for an upload".into()))?;
        crate::connection::join(&self.base, location)
    }

    /// Sends what `make` makes, once more with a new token when the old one has run out. Answers of every status come
    /// back but 401.
    pub(crate) async fn send<F, R>(&self, make: F) -> Result<Response<Incoming>>
    where
        F: Fn() -> R,
        R: Future<Output = Result<Outgoing>>,
    {
        for attempt in 0..2 {
            let mut request = make().await?;
            let value = self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            if let Some(value) = value {
                request = request.header(AUTHORIZATION, value);
            }
            let answer = self.connector.send(request).await?;
            if answer.status() != 401 {
                return Ok(answer);
            }
            if attempt == 1 {
                return Err(refusal(401, &stream::collect(answer, MAX_ERROR).await?));
            }
            self.answer_challenge(&answer).await?;
        }
        Err(Error::Invalid("the registry asks for credentials again and again".into()))
    }

    /// The same for requests without a body.
    pub(crate) async fn ask(
        &self,
        method: Method,
        url: &str,
        accept: &[&str],
        range: Option<String>,
    ) -> Result<Response<Incoming>> {
        self.send(|| {
            let mut request = Outgoing::new(method.clone(), url);
            for media in accept {
                request = request.header(http::header::ACCEPT, media);
            }
            if let Some(range) = &range {
                request = request.header(http::header::RANGE, range);
            }
            std::future::ready(Ok(request))
        })
        .await
    }

    /// The error in an answer that is not what was asked for.
    pub(crate) async fn refused(answer: Response<Incoming>) -> Error {
        let status = answer.status().as_u16();
        match stream::collect(answer, MAX_ERROR).await {
            Ok(bytes) => refusal(status, &bytes),
            Err(error) => error,
        }
    }
}

/// The registry's error as Docker words it (distribution specification, "Error Codes").
pub(crate) fn refusal(status: u16, bytes: &[u8]) -> Error {
    let value: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let first = &value["errors"][0];
    let code = first["code"].as_str().unwrap_or_default().to_owned();
    let message = match (code.as_str(), first["message"].as_str()) {
        ("DENIED", Some(message)) => format!("denied: {message}"),
        ("UNAUTHORIZED", Some(message)) => format!("unauthorized: {message}"),
        (code, Some(message)) if !code.is_empty() => {
            format!("{}: {message}", code.to_lowercase().replace('_', " "))
        }
        _ => {
            let text = String::from_utf8_lossy(bytes);
            let text: String = text.trim().chars().take(300).collect();
            format!("received unexpected HTTP status: {status} {text}").trim().to_owned()
        }
    };
    Error::Refused { status, code, message }
}
