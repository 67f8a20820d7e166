//! Single requests in a closed loop, and lists.

use crate::connection::{Call, JSON, PROTOBUF, Version};
use crate::measure::{closed_loop, say};
use crate::objects::{config_map, config_maps, post};
use crate::target::Target;
use anyhow::Result;
use http::Method;

/// How many requests a row is made of, per number of connections.
const COUNTS: [(usize, u64); 3] = [(1, 2_000), (16, 10_000), (64, 10_000)];
/// Objects of the lists.
const LISTED: u64 = 10_000;
const LISTS: u64 = 20;

/// Create, get, update, patch and delete, with one, 16 and 64 connections, in both versions of HTTP.
pub(crate) async fn run(target: &Target) -> Result<()> {
    for version in [Version::Http1, Version::Http2] {
        for (connections, count) in COUNTS {
            let name =
                move |n: u64| format!("{}-{connections}-{n}", if version == Version::Http1 { "one" } else { "two" });
            let path = move |n: u64| format!("{}/{}", config_maps(), name(n));
            let row = |verb: &str| format!("{verb}, {connections} connections, {}", version.name());
            let create = move |n| post(config_maps(), &config_map(&name(n), "0"));
            closed_loop(target, version, connections, count, create).await?.print(&row("create"));
            let get = move |n| Call::get(path(n));
            closed_loop(target, version, connections, count, get).await?.print(&row("get"));
            let put = move |n| Call::send(Method::PUT, path(n), JSON, config_map(&name(n), "1").to_string());
            closed_loop(target, version, connections, count, put).await?.print(&row("update"));
            let merge = r#"{"data":{"value":"2"}}"#;
            let patch = move |n| Call::send(Method::PATCH, path(n), "application/merge-patch+json", merge);
            closed_loop(target, version, connections, count, patch).await?.print(&row("patch"));
            let delete = move |n| Call::send(Method::DELETE, path(n), "", "");
            closed_loop(target, version, connections, count, delete).await?.print(&row("delete"));
        }
    }
    Ok(())
}

/// A list of 10,000 objects of 1 KiB, as JSON and as protobuf.
pub(crate) async fn lists(target: &Target) -> Result<()> {
    let create = |n| post(config_maps(), &config_map(&format!("listed-{n}"), "0"));
    closed_loop(target, Version::Http2, 16, LISTED, create).await?;
    let mut connection = crate::connection::Connection::open(target, Version::Http1).await?;
    for (name, accept) in [("JSON", JSON), ("protobuf", PROTOBUF)] {
        let list = Call { accept, ..Call::get(config_maps()) };
        let bytes = connection.call(&list).await?.len();
        let times = closed_loop(target, Version::Http1, 1, LISTS, move |_| list.clone()).await?;
        times.print(&format!("list {LISTED}, {name}, {:.1} MB", bytes as f64 / 1e6));
    }
    let page = Call::get(format!("{}?limit=500", config_maps()));
    closed_loop(target, Version::Http1, 1, 200, move |_| page.clone()).await?.print("list a page of 500");
    let delete = |n| Call::send(Method::DELETE, format!("{}/listed-{n}", config_maps()), "", "");
    closed_loop(target, Version::Http2, 16, LISTED, delete).await?;
    say(format_args!(""));
    Ok(())
}
