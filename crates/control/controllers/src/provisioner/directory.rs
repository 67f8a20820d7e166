//! Asks a node's kubelet, through the API server, for the directory of a volume.

use http::Method;
use pintle_client::{Client, ClientError};
use pintle_types::Status;

fn path(node: &str, volume: &str) -> String {
    format!("/api/v1/nodes/{node}/proxy/localVolumes/{volume}")
}

/// Makes the directory, if it is not there; returns its path on the node.
pub async fn make(client: &Client, node: &str, volume: &str) -> Result<String, ClientError> {
    let answer = client.json(Method::PUT, &path(node, volume), None).await?;
    let path = answer["path"].as_str().map(str::to_owned);
    path.ok_or_else(|| Status::internal(format!("node {node} did not say where volume {volume} is")).into())
}

/// Removes the directory with all that is in it; one that is not there is fine.
pub async fn remove(client: &Client, node: &str, volume: &str) -> Result<(), ClientError> {
    client.json(Method::DELETE, &path(node, volume), None).await.map(drop)
}
