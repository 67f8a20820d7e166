//! Many watchers of one resource: how late they hear, and what an event costs the server.

use crate::connection::{Call, Connection, JSON, Version};
use crate::measure::{Times, say, short};
use crate::objects::{config_map, config_maps, post};
use crate::target::Target;
use anyhow::{Context, Result};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

/// Watchers, and updates per second that are asked for.
const ROWS: [(usize, u64); 3] = [(200, 100), (200, 500), (5000, 20)];
/// How long updates go on.
const SECONDS: u64 = 5;
/// Updates that are under way at the same time.
const WRITERS: usize = 16;
/// Streams of one connection.
const STREAMS: usize = 100;
/// How long the last events may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn run(target: &Target) -> Result<()> {
    for (watchers, rate) in ROWS {
        let name = format!("watched-{watchers}-{rate}");
        let (times, sent, lost) = fan_out(target, &name, watchers, rate).await?;
        let events = times.each.len().max(1) as f64;
        say(format_args!(
            "{:<44} {:>10.0} {:>10} {:>10} {:>12}",
            format!("watch, {watchers} watchers, {rate} updates/s"),
            events / watchers as f64 / times.whole.as_secs_f64(),
            short(times.share(0.5)),
            short(times.share(0.99)),
            short(Duration::from_secs_f64(times.cpu.as_secs_f64() / events)),
        ));
        let heard = match lost {
            0 => "each heard by all".to_owned(),
            lost => format!("but {lost} watchers were cut off or did not hear all in time"),
        };
        say(format_args!("{:<44} {sent} updates, {heard}; the CPU is per event and watcher", ""));
    }
    Ok(())
}

/// Times from the update's request to the watcher that reads it; the number of updates; and how many watchers did not
/// hear all of them, as a server may cut off those that read too slowly.
async fn fan_out(target: &Target, name: &str, watchers: usize, rate: u64) -> Result<(Times, u64, usize)> {
    let mut writer = Connection::open(target, Version::Http2).await?;
    writer.call(&post(config_maps(), &config_map(name, "0"))).await?;
    let count = rate * SECONDS;
    let heard = Heard { began: Instant::now(), ready: AtomicU64::new(0), changed: Notify::new(), updates: count };
    let heard = Arc::new(heard);
    let (tell, mut times) = mpsc::unbounded_channel();
    let _watching = open_watchers(target, name, watchers, &heard, tell).await?;
    heard.wait_for(watchers as u64).await?;
    let (cpu, began) = (target.cpu(), Instant::now());
    let mut tick = tokio::time::interval(Duration::from_nanos(1_000_000_000 / rate));
    let mut writers = JoinSet::new();
    for number in 1..=count {
        tick.tick().await;
        // An update does not wait for the one before, unless too many do.
        while writers.len() >= WRITERS {
            writers.join_next().await.transpose()?.transpose()?;
        }
        let value = format!("{number}@{}@", heard.began.elapsed().as_nanos());
        let path = format!("{}/{name}", config_maps());
        let put = Call::send(Method::PUT, path, JSON, config_map(name, &value).to_string());
        let mut writer = writer.share()?;
        writers.spawn(async move { writer.call(&put).await.map(drop) });
    }
    while writers.join_next().await.transpose()?.transpose()?.is_some() {}
    let mut each = Vec::with_capacity(watchers * count as usize);
    let mut whole_watchers = 0;
    let collect = async {
        while let Some(mut some) = times.recv().await {
            whole_watchers += usize::from(some.len() as u64 == count);
            each.append(&mut some);
        }
    };
    // Who has not heard all by then is told in the row.
    let _ = tokio::time::timeout(PATIENCE, collect).await;
    let (whole, cpu) = (began.elapsed(), target.cpu() - cpu);
    each.sort_unstable();
    writer.call(&Call::send(Method::DELETE, format!("{}/{name}", config_maps()), "", "")).await?;
    Ok((Times { each, whole, cpu }, count, watchers - whole_watchers))
}

/// What the watchers have in common.
struct Heard {
    began: Instant,
    /// Watchers that have the object.
    ready: AtomicU64,
    changed: Notify,
    /// How many updates there are in all.
    updates: u64,
}

impl Heard {
    async fn wait_for(&self, watchers: u64) -> Result<()> {
        let all = async {
            loop {
                let changed = self.changed.notified();
                if self.ready.load(Ordering::Acquire) >= watchers {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(PATIENCE, all).await.context("some watchers were not answered")
    }
}

async fn open_watchers(
    target: &Target,
    name: &str,
    watchers: usize,
    heard: &Arc<Heard>,
    tell: mpsc::UnboundedSender<Vec<Duration>>,
) -> Result<JoinSet<()>> {
    let mut watching = JoinSet::new();
    let call =
        Call::get(format!("{}?watch=true&resourceVersion=0&fieldSelector=metadata.name%3D{name}", config_maps()));
    for first in (0..watchers).step_by(STREAMS) {
        let mut connection = Connection::open(target, Version::Http2).await?;
        for _ in first..(first + STREAMS).min(watchers) {
            let response = connection.begin(&call).await?;
            anyhow::ensure!(response.status().is_success(), "a watch was answered {}", response.status());
            watching.spawn(watch(response.into_body(), Arc::clone(heard), tell.clone()));
        }
        // The connection lives as long as its streams.
        drop(connection);
    }
    Ok(watching)
}

/// Reads events until there were as many as updates, or the server ends the watch; tells how late each was.
async fn watch(mut body: hyper::body::Incoming, heard: Arc<Heard>, tell: mpsc::UnboundedSender<Vec<Duration>>) {
    let (mut times, mut rest) = (Vec::new(), Vec::new());
    let mut ready = false;
    'all: while let Some(Ok(frame)) = body.frame().await {
        let Ok(bytes): Result<Bytes, _> = frame.into_data() else { continue };
        rest.extend_from_slice(&bytes);
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if !std::mem::replace(&mut ready, true) {
                heard.ready.fetch_add(1, Ordering::AcqRel);
                heard.changed.notify_waiters();
            }
            let Some(sent) = stamp(&line) else { continue };
            times.push(heard.began.elapsed().saturating_sub(sent));
            if times.len() as u64 == heard.updates {
                break 'all;
            }
        }
    }
    // Nobody listens any more when the run was given up.
    let _ = tell.send(times);
}

/// When an update was sent, found without parsing the event: that would load the machine more
/// than the server does.
fn stamp(line: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(line).ok()?;
    let value = text.split_once("\"value\":\"")?.1;
    Some(Duration::from_nanos(value.split('@').nth(1)?.parse().ok()?))
}
