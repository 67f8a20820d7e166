//! Goes the round of the CRI contract over a socket: `cri-round ENDPOINT IMAGE DIRECTORY CGROUP`.

use anyhow::{Context, Result};
use pintle_cri_contract::{Place, round};
use pintle_cri_socket::RemoteRuntime;
use std::path::PathBuf;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().with_context(|| format!("{what} is missing"));
    let (endpoint, image) = (next("the endpoint")?, next("the image")?);
    let (directory, cgroup_parent) = (PathBuf::from(next("the directory")?), next("the cgroup")?);
    let runtime = RemoteRuntime::new(&endpoint, &directory.join("state"))?;
    round(&runtime, &Place { image, log_directory: directory.join("logs"), cgroup_parent }).await;
    Ok(())
}
