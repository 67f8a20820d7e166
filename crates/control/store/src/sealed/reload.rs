//! Takes over a changed configuration while the store is in use: another key writes, and what others wrote is stale.

use super::{Configuration, ENCRYPTED, Rule, Rules, SealedStore, unreadable};
use crate::{KeyRange, RangeRequest, StoreError};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The time between two looks at the file, as upstream has it.
pub const PERIOD: Duration = Duration::from_secs(60);
/// Values that are looked at in one step.
const PAGE: usize = 500;

impl SealedStore {
    /// Other rules from now on; what the first provider of a key did not write is stale then. Rules that cannot read
    /// all that is stored are refused, and those before stay.
    pub async fn replace(&self, rules: Vec<Rule>) -> Result<(), StoreError> {
        let new = Arc::new(Rules::new(rules));
        let old = self.seals.rules.load_full();
        let prefixes: HashSet<&str> = old.0.iter().chain(&new.0).map(|rule| rule.prefix.as_str()).collect();
        for prefix in &prefixes {
            self.look_through(prefix, &new, |_, _| ()).await?;
        }
        self.seals.rules.store(new.clone());
        // A second look: what was written between the first and the change is stale, too.
        for prefix in &prefixes {
            self.look_through(prefix, &new, |key, stale| self.seals.mark(key, stale)).await?;
        }
        Ok(())
    }

    /// Tells of every key below a prefix whether other rules call its value stale.
    async fn look_through(
        &self,
        prefix: &str,
        rules: &Rules,
        seen: impl Fn(&bytes::Bytes, bool),
    ) -> Result<(), StoreError> {
        let mut range = KeyRange::prefix(prefix.to_owned());
        loop {
            let page = self.inner.range(RangeRequest { range: range.clone(), at: None, limit: PAGE }).await?;
            for kv in &page.kvs {
                match rules.writer(kv)? {
                    Some((_, stale)) => seen(&kv.key, stale),
                    None if kv.value.starts_with(ENCRYPTED) => return Err(unreadable(&kv.key)),
                    None => seen(&kv.key, false),
                }
            }
            let Some(last) = page.kvs.last().filter(|_| page.kvs.len() >= PAGE) else { return Ok(()) };
            range.start = [&last.key[..], &[0]].concat().into();
        }
    }

    /// Looks at the file every [`PERIOD`] and takes over what has changed since it was `known`, for as long as it is
    /// polled. `rules` are those of a configuration.
    pub async fn follow(&self, file: &Path, known: String, rules: impl Fn(&Configuration) -> Vec<Rule>) {
        let mut known = known;
        loop {
            tokio::time::sleep(PERIOD).await;
            // A file that is being replaced is read the next time.
            let Some(text) = std::fs::read_to_string(file).ok().filter(|text| *text != known) else { continue };
            let replaced = match Configuration::parse(&text) {
                Ok(configuration) => self.replace(rules(&configuration)).await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match replaced {
                Ok(()) => tracing::info!(file = %file.display(), "the encryption configuration was read again"),
                Err(error) => {
                    tracing::error!(file = %file.display(), error, "the encryption configuration has changed, but can't be used");
                }
            }
            known = text;
        }
    }
}
