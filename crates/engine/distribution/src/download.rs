//! Downloads one address, for builds that add files from the network.

use crate::connection::{Connector, Outgoing, TrustRoots};
use crate::error::{Error, Result};
use http::{Method, Response};
use hyper::body::Incoming;

/// Asks for an address of `http` or `https` and follows redirects. Certificates are verified; plain HTTP is allowed
/// where the address itself says it.
///
/// # Errors
/// When the server cannot be reached, or answers with an error.
pub async fn download(url: &str) -> Result<Response<Incoming>> {
    let plain = url.strip_prefix("http://").map(|rest| rest.split('/').next().unwrap_or_default().to_owned());
    let insecure: Vec<String> = plain.into_iter().collect();
    let answer = Connector::new(TrustRoots::default(), &insecure).send(Outgoing::new(Method::GET, url)).await?;
    if !answer.status().is_success() {
        return Err(Error::Invalid(format!("failed to GET {url} with status {}", answer.status())));
    }
    Ok(answer)
}
