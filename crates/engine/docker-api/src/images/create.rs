//! Pulls images, and imports them from archives of a root file system.

use super::told::{Teller, channel, waiting};
use super::{blocking, familiar, load, reference, tell};
use crate::State;
use crate::answer::Result;
use crate::auth::credentials;
use crate::call::Call;
use pintle_distribution::{Credentials, Error, Options, pull};
use pintle_docker::DockerError;
use pintle_image::{Import, Reference};
use serde_json::json;
use std::io::Read;
use std::sync::Arc;

pub(crate) async fn create(state: &Arc<State>, call: Call) -> Result {
    match call.query.get("fromSrc") {
        "" => pull_image(state, &call).await,
        source => {
            let source = source.to_owned();
            import(state, call, &source).await
        }
    }
}

async fn import(state: &Arc<State>, mut call: Call, source: &str) -> Result {
    let (repository, tag) = (call.query.get("repo"), call.query.get("tag"));
    let name = if tag.is_empty() { repository.to_owned() } else { format!("{repository}:{tag}") };
    let named = if repository.is_empty() { None } else { Some(reference(&name)?) };
    let mut config = json!({});
    pintle_image::apply_changes(&mut config, call.query.all("changes"))?;
    let comment = call.query.get("message").to_owned();
    let mut extra = json!({});
    let names = ["os", "architecture", "variant"];
    for (name, value) in names.into_iter().zip(call.query.get("platform").split('/')).filter(|(_, v)| !v.is_empty()) {
        extra[name] = json!(value);
    }
    let (teller, answer) = channel();
    let reader: Box<dyn Read + Send> = match source {
        "-" => Box::new(load::reader(&mut call)?),
        address => Box::new(from_address(address, &teller).await?),
    };
    let tag = named.clone();
    let imported = blocking(state, move |images| {
        images.import(reader, &Import { config, extra, comment: &comment, tag, ..Import::default() })
    })
    .await?;
    tell(state, "import", &imported.id, &named.map_or_else(|| imported.id.clone(), |n| n.familiar()));
    teller.status(&imported.id);
    Ok(answer)
}

/// What a web server has, for a thread that reads it.
async fn from_address(address: &str, teller: &Teller) -> Result<impl Read + Send + 'static + use<>> {
    let address = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    teller.status(&format!("Downloading from {address}"));
    let answer = pintle_distribution::download(&address).await.map_err(|e| DockerError::internal(e.to_string()))?;
    Ok(load::read_body(answer.into_body()))
}

async fn pull_image(state: &Arc<State>, call: &Call) -> Result {
    let (name, tag) = (call.query.get("fromImage"), call.query.get("tag"));
    let whole = match tag {
        "" => name.to_owned(),
        digest if digest.starts_with("sha256:") => format!("{name}@{digest}"),
        tag => format!("{name}:{tag}"),
    };
    let reference = reference(&whole)?;
    let last = name.rsplit('/').next().unwrap_or_default();
    let all_tags = tag.is_empty() && !last.contains([':', '@']);
    let mut options = state.registries.clone();
    let platform: Vec<&str> = call.query.get("platform").split('/').collect();
    if let [os, rest @ ..] = platform.as_slice()
        && !os.is_empty()
    {
        (*os).clone_into(&mut options.platform.0);
        if let Some(architecture) = rest.first() {
            (*architecture).clone_into(&mut options.platform.1);
        }
        options.platform.2 = rest.get(1).copied().unwrap_or_default().to_owned();
    }
    let (teller, told) = waiting();
    let (state, credentials) = (Arc::clone(state), credentials(call));
    tokio::spawn(async move {
        let pulled = match all_tags {
            true => run_all(&state, &reference, &credentials, &options, &teller).await,
            false => run(&state, &reference, credentials, &options, &teller).await,
        };
        match pulled {
            Ok(new) => {
                let what = if new { "Downloaded newer image for" } else { "Image is up to date for" };
                // Without a tag where all were asked for.
                let name = if all_tags { untagged(&reference) } else { familiar(&reference.to_string()) };
                teller.status(&format!("Status: {what} {name}"));
            }
            Err(why) => teller.fail(why),
        }
    });
    told.answer().await
}

/// Whether an image was new, or in Docker's words why it cannot be pulled.
type Pulled = std::result::Result<bool, DockerError>;

/// Pulls every tag of a repository, one after the other, up to the first that fails.
async fn run_all(
    state: &State,
    reference: &Reference,
    credentials: &Credentials,
    options: &Options,
    teller: &Teller,
) -> Pulled {
    let tags = pintle_distribution::tags(reference, credentials.clone(), options).await;
    let mut new = false;
    for tag in tags.map_err(|error| failure(&error, reference))? {
        let tagged = Reference { tag: Some(tag), ..reference.clone() };
        new |= run(state, &tagged, credentials.clone(), options, teller).await?;
    }
    Ok(new)
}

async fn run(
    state: &State,
    reference: &Reference,
    credentials: Credentials,
    options: &Options,
    teller: &Teller,
) -> Pulled {
    let told = teller.clone();
    let progress = move |progress| told.progress(progress);
    let pulled = pull(&state.images, reference, credentials, options, &progress).await;
    let pulled = pulled.map_err(|error| failure(&error, reference))?;
    let name = familiar(&reference.to_string());
    tell(state, "pull", &name, &name);
    Ok(!pulled.up_to_date)
}

/// What Docker answers when a registry says no.
fn failure(error: &Error, reference: &Reference) -> DockerError {
    let status = if error.is_unauthorized() || error.is_not_found() { 404 } else { 500 };
    DockerError::new(status, words(error, reference))
}

/// What Docker says then.
pub(crate) fn words(error: &Error, reference: &Reference) -> String {
    let name = untagged(reference);
    if error.is_unauthorized() {
        return format!(
            "pull access denied for {name}, repository does not exist or may require 'docker login': {error}"
        );
    }
    error.to_string()
}

fn untagged(reference: &Reference) -> String {
    Reference { tag: None, digest: None, ..reference.clone() }.familiar()
}
