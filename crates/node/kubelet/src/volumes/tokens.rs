//! Service account tokens in volumes, asked for anew before they end.

use crate::api::{Api, ApiError, Token, TokenWish};
use crate::backoff::elapsed;
use jiff::Timestamp;
use std::collections::HashMap;
use std::time::Duration;

/// A token older than this is replaced, however long it is good for.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

struct Held {
    token: Token,
    since: Timestamp,
}

/// The tokens of one pod.
#[derive(Default)]
pub struct Tokens {
    held: HashMap<TokenWish, Held>,
}

impl Held {
    /// When a fifth of the life is left, or after a day.
    fn refresh_at(&self) -> Timestamp {
        let life = elapsed(self.since, self.token.expires);
        let age = (life * 4 / 5).min(MAX_AGE);
        self.since.saturating_add(age).unwrap_or(self.token.expires)
    }
}

impl Tokens {
    /// A token that is good for a while yet. When a new one can't be had, the old one serves until its end.
    pub async fn get(&mut self, api: &dyn Api, wish: &TokenWish, now: Timestamp) -> Result<String, ApiError> {
        if let Some(held) = self.held.get(wish).filter(|h| now < h.refresh_at()) {
            return Ok(held.token.text.clone());
        }
        match api.token(wish).await {
            Ok(token) => {
                let text = token.text.clone();
                self.held.insert(wish.clone(), Held { token, since: now });
                Ok(text)
            }
            Err(error) => match self.held.get(wish).filter(|h| now < h.token.expires) {
                Some(held) => {
                    tracing::warn!(%error, pod = wish.pod_name, "a service account token can't be renewed yet");
                    Ok(held.token.text.clone())
                }
                None => Err(error),
            },
        }
    }

    /// When the first token is to be replaced.
    pub fn refresh_at(&self) -> Option<Timestamp> {
        self.held.values().map(Held::refresh_at).min()
    }
}
