//! The way of one party to the API server, and what can go wrong on it.

use crate::capacity::Meter;
use crate::chance::Chance;
use crate::plane::Front;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;
use pintle_apiserver::User;
use pintle_client::{Body, BoxError, Client, Transport, TransportError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

/// How long a request on a cut link waits before it is given up, as TCP and HTTP/2 pings would.
const PATIENCE: Duration = Duration::from_secs(15);

/// The least that a request takes.
const SHORTEST: Duration = Duration::from_millis(1);

/// What goes wrong on a link, with which probability for each request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// Refused before the server sees it.
    pub(crate) refuse: f64,
    /// Done, and the answer lost.
    pub(crate) lose: f64,
    /// A watch ends early.
    pub(crate) cut: f64,
    /// The longest that a request takes on its way.
    pub(crate) delay: Duration,
    /// The longest that an event of a watch takes on its way.
    pub(crate) lag: Duration,
}

/// A party's way to the server.
pub(crate) struct Link {
    front: Arc<Front>,
    user: User,
    chance: Chance,
    weather: Mutex<Weather>,
    connected: watch::Sender<bool>,
    /// Who wants to know what requests take.
    meter: OnceLock<Arc<Meter>>,
}

impl Link {
    pub(crate) fn new(front: Arc<Front>, user: User, chance: Chance) -> Arc<Self> {
        let connected = watch::Sender::new(true);
        Arc::new(Self { front, user, chance, weather: Mutex::default(), connected, meter: OnceLock::new() })
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        *self.weather.lock() = weather;
    }

    /// From now on requests are measured; the first meter stays.
    pub(crate) fn set_meter(&self, meter: Arc<Meter>) {
        let _ = self.meter.set(meter);
    }

    pub(crate) fn set_connected(&self, connected: bool) {
        self.connected.send_replace(connected);
    }

    pub(crate) fn client(self: &Arc<Self>, agent: &str) -> Client {
        self.client_as(self.user.clone(), agent)
    }

    /// A client of another identity that shares this link's fate.
    pub(crate) fn client_as(self: &Arc<Self>, user: User, agent: &str) -> Client {
        Client::new(Arc::new(Way { link: Arc::clone(self), user })).with_user_agent(agent)
    }

    /// Fails once the link has been cut for a while.
    async fn cut(mut connected: watch::Receiver<bool>) {
        loop {
            // The sender lives in the link, which those who wait hold.
            if connected.wait_for(|connected| !connected).await.is_err() {
                return std::future::pending().await;
            }
            let healed = connected.wait_for(|connected| *connected);
            if tokio::time::timeout(PATIENCE, healed).await.is_err() {
                return;
            }
        }
    }
}

struct Way {
    link: Arc<Link>,
    user: User,
}

#[async_trait::async_trait]
impl Transport for Way {
    async fn call(&self, request: http::Request<Bytes>) -> Result<http::Response<Body>, TransportError> {
        let link = &self.link;
        let weather = *link.weather.lock();
        let lost = |why: &str| TransportError::new(format!("{} {}: {why}", request.method(), request.uri()));
        let (cut, lost_words) = (lost("the network is cut"), lost("the answer was lost"));
        // Never nothing: two parties that undo each other's work would stop the clock.
        tokio::time::sleep(link.chance.time(SHORTEST..SHORTEST + weather.delay)).await;
        if link.chance.happens(weather.refuse) {
            return Err(lost("connection refused"));
        }
        let Some((server, generation)) = link.front.server() else {
            return Err(lost("connection refused: the server is down"));
        };
        let mut connected = link.connected.subscribe();
        if tokio::time::timeout(PATIENCE, connected.wait_for(|connected| *connected)).await.is_err() {
            return Err(cut);
        }
        let transport = server.local_transport(self.user.clone());
        let kind = link.meter.get().map(|meter| (meter, Meter::kind(&request)));
        let called = async {
            match kind {
                Some((meter, kind)) => meter.measure(kind, transport.call(request)).await,
                None => transport.call(request).await,
            }
        };
        let answer = tokio::select! {
            biased;
            answer = called => answer?,
            () = generation.cancelled() => return Err(lost_words),
            () = Link::cut(link.connected.subscribe()) => return Err(cut),
        };
        if link.chance.happens(weather.lose) {
            return Err(lost_words);
        }
        let ended = {
            let (connected, cut) = (link.connected.subscribe(), link.chance.happens(weather.cut));
            let early = cut.then(|| link.chance.time(Duration::ZERO..Duration::from_secs(60)));
            async move {
                tokio::select! {
                    biased;
                    () = generation.cancelled() => {}
                    () = Link::cut(connected) => {}
                    () = async { tokio::time::sleep(early.unwrap_or_default()).await }, if early.is_some() => {}
                }
            }
        };
        let way = Arc::clone(link);
        Ok(answer.map(|body| Body::new(StreamBody::new(carry(body, ended, way, weather.lag)))))
    }
}

/// A body's frames as they come over the link: held while it is cut, late by up to `lag`, ended with an error when
/// `ended` is.
fn carry(
    body: Body,
    ended: impl Future<Output = ()> + Send + 'static,
    link: Arc<Link>,
    lag: Duration,
) -> impl Stream<Item = Result<Frame<Bytes>, BoxError>> + Send + 'static {
    let state = (body, Box::pin(ended), link, false);
    let frames = stream::unfold(state, move |(mut body, mut ended, link, over)| async move {
        if over {
            return None;
        }
        let next = async {
            let frame = body.frame().await?;
            let mut connected = link.connected.subscribe();
            // The sender lives in the link.
            let _ = connected.wait_for(|connected| *connected).await;
            if !lag.is_zero() && link.chance.happens(0.2) {
                tokio::time::sleep(link.chance.time(Duration::ZERO..lag)).await;
            }
            Some(frame)
        };
        let (frame, over) = tokio::select! {
            biased;
            () = &mut ended => (Some(Err("the connection was reset".into())), true),
            frame = next => (frame, false),
        };
        Some((frame?, (body, ended, link, over)))
    });
    frames.fuse()
}
