//! What objects cost the server in memory: pods and definitions of custom resources.

use crate::connection::{Call, Version};
use crate::measure::{closed_loop, say};
use crate::objects::{NAMESPACE, definition, pod, post, prepare};
use crate::target::Target;
use anyhow::Result;
use http::Method;

const PODS: u64 = 10_000;
/// Definitions of custom resources, as a cluster with a few large operators has them.
pub(crate) const DEFINITIONS: usize = 125;

/// On a server of its own when it may start one: what a server freed before, it uses again.
pub(crate) async fn run(target: &Target) -> Result<()> {
    if !target.is_own() {
        pods(target).await?;
        return definitions(target).await;
    }
    for resource in ["pods", "definitions"] {
        let target = Target::start().await?;
        prepare(&target).await?;
        if resource == "pods" { pods(&target).await? } else { definitions(&target).await? }
    }
    Ok(())
}

async fn pods(target: &Target) -> Result<()> {
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let before = target.memory();
    let path = pods.clone();
    let created =
        closed_loop(target, Version::Http2, 16, PODS, move |n| post(path.clone(), &pod(&format!("p{n}")))).await?;
    created.print("create a pod, 16 connections, HTTP/2");
    let bytes =
        crate::connection::Connection::open(target, Version::Http1).await?.call(&Call::get(pods.clone())).await?;
    let grown = target.memory().saturating_sub(before);
    row(&format!("memory of {PODS} pods, {:.1} MB as JSON", bytes.len() as f64 / 1e6), grown, PODS);
    let delete = move |n| Call::send(Method::DELETE, format!("{pods}/p{n}?gracePeriodSeconds=0"), "", "");
    closed_loop(target, Version::Http2, 16, PODS, delete).await?;
    Ok(())
}

async fn definitions(target: &Target) -> Result<()> {
    let before = target.memory();
    let create = |n| post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition(n as usize));
    let created = closed_loop(target, Version::Http2, 1, DEFINITIONS as u64, create).await?;
    created.print("create a definition of 60 KB");
    let grown = target.memory().saturating_sub(before);
    row(&format!("memory of {DEFINITIONS} definitions"), grown, DEFINITIONS as u64);
    Ok(())
}

fn row(name: &str, grown: u64, count: u64) {
    let each = grown as f64 / count as f64 / 1024.0;
    say(format_args!("{name:<44} {:>9.1} MiB, {each:.1} KiB each", grown as f64 / 1048576.0));
}
