//! Leader election by a Lease: of several servers that share a cluster, one at a time does what only one may do.
//!
//! Source: client-go's `leaderelection`, with its usual times. Clocks of different machines are never compared: a holder
//! counts as gone when its Lease has not changed for as long as it says, measured by this process's own time.

use pintle_client::{Client, ClientError};
use pintle_clock::Clock;
use pintle_types::ObjectMeta;
use pintle_types::k8s::api::coordination::v1::{Lease, LeaseSpec};
use pintle_types::k8s::apimachinery::pkg::apis::meta::v1::MicroTime;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "kube-system";

/// How fast a lead changes hands; by default as upstream's components have it.
#[derive(Clone, Copy, Debug)]
pub struct ElectionTimes {
    /// How long a holder that says nothing keeps the Lease; whole seconds.
    pub lease: Duration,
    /// How long the leader goes on when it cannot renew; less than the above.
    pub renew: Duration,
    /// The pause between two tries, of the leader and of those who wait.
    pub retry: Duration,
}

impl Default for ElectionTimes {
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), renew: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

/// One candidate for one Lease of `kube-system`.
pub struct Election {
    client: Client,
    clock: Arc<dyn Clock>,
    name: String,
    identity: String,
    times: ElectionTimes,
    /// What the Lease said when it last changed, and since when it says so.
    observed: Option<(LeaseSpec, Instant)>,
}

impl Election {
    /// `name` is the Lease's, such as `kube-scheduler`; `identity` is this process's alone.
    pub fn new(client: Client, clock: Arc<dyn Clock>, name: &str, identity: &str) -> Self {
        let times = ElectionTimes::default();
        Self { client, clock, name: name.to_owned(), identity: identity.to_owned(), times, observed: None }
    }

    /// The same with other times. All candidates should have the same.
    pub fn timed(self, times: ElectionTimes) -> Self {
        Self { times, ..self }
    }

    /// Does `work` whenever this candidate leads, until `stop`. The token that the work gets ends with the lead; the
    /// Lease is let go once the work has ended.
    pub async fn run<F, W>(mut self, stop: CancellationToken, work: F)
    where
        F: Fn(CancellationToken) -> W,
        W: Future<Output = ()>,
    {
        while stop.run_until_cancelled(self.acquire()).await.is_some() {
            tracing::info!(lease = %self.name, identity = %self.identity, "leading");
            let leading = stop.child_token();
            let renewing = async {
                self.renew(&leading).await;
                leading.cancel();
            };
            tokio::join!(work(leading.clone()), renewing);
            self.release().await;
            tracing::info!(lease = %self.name, identity = %self.identity, "no longer leading");
        }
    }

    async fn acquire(&mut self) {
        loop {
            match self.try_once().await {
                Ok(true) => return,
                Ok(false) => {}
                // Another candidate was faster, or there is no server just now.
                Err(error) => tracing::debug!(lease = %self.name, %error, "the Lease was not acquired"),
            }
            tokio::time::sleep(self.times.retry.mul_f64(1.0 + rand::random::<f64>() * 0.2)).await;
        }
    }

    /// Returns when the lead is over: it was lost, or `leading` is cancelled.
    async fn renew(&mut self, leading: &CancellationToken) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < self.times.renew {
            if leading.run_until_cancelled(tokio::time::sleep(self.times.retry)).await.is_none() {
                return;
            }
            let left = self.times.renew.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.try_once()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!(lease = %self.name, %error, "the Lease was not renewed"),
                Err(_) => {}
            }
        }
        tracing::warn!(lease = %self.name, "gave up to renew the Lease");
    }

    /// Takes or renews the Lease, if nobody else holds it.
    async fn try_once(&mut self) -> Result<bool, ClientError> {
        let Some(mut lease) = self.client.get_opt::<Lease>(NAMESPACE, &self.name).await? else {
            let metadata = ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(NAMESPACE.into()),
                ..ObjectMeta::default()
            };
            let made = self.client.create(&Lease { metadata, spec: Some(self.held(None)) }).await?;
            self.observe(made.spec.unwrap_or_default());
            return Ok(true);
        };
        let found = lease.spec.take().unwrap_or_default();
        self.observe(found.clone());
        let holder = found.holder_identity.as_deref().unwrap_or_default();
        if !holder.is_empty() && holder != self.identity && !self.is_over(&found) {
            return Ok(false);
        }
        lease.spec = Some(self.held(Some(&found)));
        let written = self.client.update(&lease).await?;
        self.observe(written.spec.unwrap_or_default());
        Ok(true)
    }

    fn observe(&mut self, found: LeaseSpec) {
        if self.observed.as_ref().is_none_or(|(known, _)| *known != found) {
            self.observed = Some((found, Instant::now()));
        }
    }

    fn is_over(&self, found: &LeaseSpec) -> bool {
        let seconds = found.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let lasts = seconds.map_or(self.times.lease, Duration::from_secs);
        self.observed.as_ref().is_some_and(|(_, since)| since.elapsed() >= lasts)
    }

    /// The Lease as this candidate holds it from now on.
    fn held(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(self.clock.now());
        let own = before.filter(|before| before.holder_identity.as_deref() == Some(&self.identity));
        let transitions = before.and_then(|before| before.lease_transitions).unwrap_or_default();
        let taken_over = i32::from(before.is_some() && own.is_none());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(self.times.lease.as_secs() as i32),
            acquire_time: own.and_then(|own| own.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions + taken_over),
            ..LeaseSpec::default()
        }
    }

    /// Lets the next candidate take over at once. Without a server it has to wait.
    async fn release(&mut self) {
        let release = async {
            let Some(mut lease) = self.client.get_opt::<Lease>(NAMESPACE, &self.name).await? else { return Ok(()) };
            let Some(spec) = &mut lease.spec else { return Ok(()) };
            if spec.holder_identity.as_deref() != Some(&self.identity) {
                return Ok(());
            }
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            self.client.update(&lease).await.map(drop)
        };
        let released: Result<Result<(), ClientError>, _> = tokio::time::timeout(self.times.retry, release).await;
        if let Ok(Err(error)) = released {
            tracing::debug!(lease = %self.name, %error, "the Lease was not let go");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_fake_api::FakeApi;
    use tokio::sync::mpsc;

    /// Starts a candidate; what it does is heard as `+name` and `-name`.
    fn candidate(api: &FakeApi, name: &'static str, heard: &mpsc::UnboundedSender<String>) -> CancellationToken {
        let stop = CancellationToken::new();
        let election = Election::new(api.client(), pintle_clock::system(), "l", name);
        let (ended, heard) = (stop.clone(), heard.clone());
        tokio::spawn(election.run(ended, move |leading| {
            let heard = heard.clone();
            async move {
                heard.send(format!("+{name}")).expect("the test listens");
                leading.cancelled().await;
                heard.send(format!("-{name}")).expect("the test listens");
            }
        }));
        stop
    }

    fn holder(api: &FakeApi) -> Option<String> {
        api.get::<Lease>(NAMESPACE, "l")?.spec?.holder_identity
    }

    #[tokio::test(start_paused = true)]
    async fn one_leads_and_the_next_takes_over() {
        let (api, (heard, mut told)) = (FakeApi::new(), mpsc::unbounded_channel());
        let first = candidate(&api, "a", &heard);
        assert_eq!(told.recv().await.as_deref(), Some("+a"));
        let second = candidate(&api, "b", &heard);
        assert!(tokio::time::timeout(Duration::from_secs(60), told.recv()).await.is_err(), "one is enough");
        assert_eq!(holder(&api).as_deref(), Some("a"));
        let stopped = Instant::now();
        first.cancel();
        assert_eq!((told.recv().await.as_deref(), told.recv().await.as_deref()), (Some("-a"), Some("+b")));
        assert!(stopped.elapsed() < ElectionTimes::default().lease, "it was let go");
        assert_eq!(api.get::<Lease>(NAMESPACE, "l").unwrap().spec.unwrap().lease_transitions, Some(1));
        second.cancel();
        assert_eq!(told.recv().await.as_deref(), Some("-b"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_leader_is_replaced_and_learns_of_it() {
        let (api, (heard, mut told)) = (FakeApi::new(), mpsc::unbounded_channel());
        let _first = candidate(&api, "a", &heard);
        assert_eq!(told.recv().await.as_deref(), Some("+a"));
        let mut lease = api.get::<Lease>(NAMESPACE, "l").unwrap();
        lease.spec.as_mut().unwrap().holder_identity = Some("gone".into());
        let (began, client) = (Instant::now(), api.client());
        client.update(&lease).await.unwrap();
        assert_eq!(told.recv().await.as_deref(), Some("-a"));
        assert_eq!(told.recv().await.as_deref(), Some("+a"), "nobody renews what the other holds");
        assert!(began.elapsed() >= ElectionTimes::default().lease);
    }
}
