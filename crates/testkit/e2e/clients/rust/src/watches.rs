//! Watchers and reflectors: what changes comes to them, also when a watch cannot go on from where it was.

use crate::{LIMIT, Place, config_map, eventually};
use anyhow::{Context, Result, bail, ensure};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt, reflector};
use serde_json::json;
use std::pin::pin;

type Events<'a> = std::pin::Pin<&'a mut (dyn Stream<Item = watcher::Result<Event<ConfigMap>>> + 'a)>;

/// What the next event is, and of which object.
async fn next(events: &mut Events<'_>) -> Result<String> {
    let event = tokio::time::timeout(LIMIT, events.next()).await.context("no event")?.context("the end")??;
    Ok(match event {
        Event::Init => "init".to_owned(),
        Event::InitApply(object) => format!("there {}", object.name_any()),
        Event::InitDone => "done".to_owned(),
        Event::Apply(object) => format!("applied {}", object.name_any()),
        Event::Delete(object) => format!("deleted {}", object.name_any()),
    })
}

async fn follow(place: Place, label: &str, config: watcher::Config) -> Result<()> {
    let maps = place.maps();
    let names = [format!("{label}-1"), format!("{label}-2")];
    let labelled = |name: &str| config_map(name, &[], &[("watched", label)]);
    maps.create(&PostParams::default(), &labelled(&names[0])).await?;
    // A watcher takes what a cache has; after this list every cache has the object.
    maps.list(&Default::default()).await?;
    let events = watcher(maps.clone(), config.labels(&format!("watched={label}")));
    let mut events = pin!(events);
    let mut events: Events = events.as_mut();
    for expected in ["init".to_owned(), format!("there {}", names[0]), "done".to_owned()] {
        let found = next(&mut events).await?;
        ensure!(found == expected, "{found} where {expected} was due");
    }
    maps.create(&PostParams::default(), &labelled(&names[1])).await?;
    let change = json!({ "data": { "a": "b" } });
    maps.patch(&names[0], &PatchParams::default(), &Patch::Merge(&change)).await?;
    maps.delete(&names[0], &DeleteParams::default()).await?;
    for (what, name) in [("applied", &names[1]), ("applied", &names[0]), ("deleted", &names[0])] {
        let found = next(&mut events).await?;
        ensure!(found == format!("{what} {name}"), "{found} where {what} {name} was due");
    }
    Ok(())
}

pub async fn lists(place: Place) -> Result<()> {
    follow(place, "lists", watcher::Config::default().page_size(1)).await
}

pub async fn streaming(place: Place) -> Result<()> {
    follow(place, "streams", watcher::Config::default().streaming_lists()).await
}

/// Changes one large object until the versions from before are too old to watch from.
async fn outlive_the_watch_cache(maps: &Api<ConfigMap>) -> Result<()> {
    maps.create(&PostParams::default(), &config_map("churn", &[], &[])).await?;
    for turn in 0..40 {
        let large = json!({ "data": { "large": (turn % 10).to_string().repeat(200_000) } });
        maps.patch("churn", &PatchParams::default(), &Patch::Merge(&large)).await?;
    }
    maps.delete("churn", &DeleteParams::default()).await?;
    Ok(())
}

pub async fn expired(place: Place) -> Result<()> {
    let maps = place.maps();
    let start = maps.list(&Default::default()).await?.metadata.resource_version.context("a version")?;
    outlive_the_watch_cache(&maps).await?;
    let mut events = pin!(maps.watch(&WatchParams::default(), &start).await?);
    match tokio::time::timeout(LIMIT, events.next()).await?.context("the end")?? {
        WatchEvent::Error(status) => {
            ensure!(status.code == 410 && status.reason == "Expired", "{status:?}");
            ensure!(status.message.starts_with(&format!("too old resource version: {start} (")), "{status:?}");
        }
        other => bail!("{other:?} where an error was due"),
    }
    Ok(())
}

/// A store that is kept by a stream, through a churn that the stream lives through.
pub async fn reflected(place: Place) -> Result<()> {
    let maps = place.maps();
    let labels = [("reflected", "yes")];
    maps.create(&PostParams::default(), &config_map("mirror-1", &[], &labels)).await?;
    let (reader, writer) = reflector::store::<ConfigMap>();
    let events = watcher(maps.clone(), watcher::Config::default().labels("reflected=yes"));
    let stream = reflector(writer, events).default_backoff().touched_objects();
    let following = tokio::spawn(stream.for_each(|_| futures::future::ready(())));
    tokio::time::timeout(LIMIT, reader.wait_until_ready()).await??;
    ensure!(reader.state().len() == 1);
    outlive_the_watch_cache(&maps).await?;
    maps.create(&PostParams::default(), &config_map("mirror-2", &[], &labels)).await?;
    maps.delete("mirror-1", &DeleteParams::default()).await?;
    let names = || async {
        let names: Vec<String> = reader.state().iter().map(|object| object.name_any()).collect();
        Ok((names == ["mirror-2"]).then_some(()))
    };
    eventually("the store has the second object alone", names).await?;
    following.abort();
    Ok(())
}
