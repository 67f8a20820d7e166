//! Searches the index of a registry, which only Docker Hub and a few old ones have (the first version of its API).

use crate::authorization::escape;
use crate::connection::{Connector, Outgoing};
use crate::error::{Error, Result};
use crate::{Options, stream};
use http::Method;
use serde_json::Value;

/// The most bytes of an answer.
const MAX_ANSWER: usize = 4 << 20;

/// At most `limit` repositories that an index finds for a term, as the index tells of them. The term may begin with the
/// host of another index than Docker Hub's.
///
/// # Errors
/// When the index does not answer, or has none.
pub async fn search(term: &str, limit: u32, options: &Options) -> Result<Vec<Value>> {
    let (host, term) = split(term);
    let connector = Connector::new(options.trust.clone(), &options.insecure);
    let query = format!("/v1/search?q={}&n={limit}", escape(term));
    let mut answer = connector.send(Outgoing::new(Method::GET, format!("https://{host}{query}"))).await;
    if answer.is_err() && connector.is_insecure(host) {
        answer = connector.send(Outgoing::new(Method::GET, format!("http://{host}{query}"))).await;
    }
    let answer = answer?;
    if answer.status() != 200 {
        return Err(Error::Invalid(format!("Unexpected status code {}", answer.status().as_u16())));
    }
    let bytes = stream::collect(answer, MAX_ANSWER).await?;
    let mut found: Value = serde_json::from_slice(&bytes)
        .map_err(|e| Error::Invalid(format!("error decoding registry search results: {e}")))?;
    match found.get_mut("results").map(Value::take) {
        Some(Value::Array(results)) => Ok(results),
        _ => Ok(Vec::new()),
    }
}

/// The host of an index and what is asked of it; names without a host are Docker Hub's.
fn split(term: &str) -> (&str, &str) {
    match term.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
        _ => ("index.docker.io", term.strip_prefix("library/").unwrap_or(term)),
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn terms_may_name_an_index() {
        for (term, expected) in [
            ("redis", ("index.docker.io", "redis")),
            ("library/redis", ("index.docker.io", "redis")),
            ("me/redis", ("index.docker.io", "me/redis")),
            ("localhost:5000/me/redis", ("localhost:5000", "me/redis")),
        ] {
            assert_eq!(split(term), expected);
        }
    }
}
