//! How an image came to be, as `docker history` tells it, and what its layers have in common with other images.

use crate::record::ImageRecord;
use crate::{ImageError, ImageStore, Reference, Result};
use std::collections::{HashMap, HashSet};

/// One step of an image's making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The image's id where that step was made here, else `<missing>`.
    pub id: String,
    /// In seconds since 1970.
    pub created: i64,
    pub created_by: String,
    /// As people write them.
    pub tags: Vec<String>,
    /// Bytes of the files that it brought.
    pub size: u64,
    pub comment: String,
}

impl ImageStore {
    /// The steps of an image's making, the last first.
    pub fn history(&self, name: &str) -> Result<Vec<HistoryEntry>> {
        let image = self.resolve(name).ok_or_else(|| ImageError::NotFound(name.into()))?;
        let mut sizes = image.layers.iter().map(|layer| layer.content);
        let steps = image.configuration.history().clone().unwrap_or_default();
        let entry = |step: &oci_spec::image::History| HistoryEntry {
            id: "<missing>".into(),
            created: seconds(step.created().as_deref()),
            created_by: step.created_by().clone().unwrap_or_default(),
            tags: Vec::new(),
            size: if step.empty_layer().unwrap_or(false) { 0 } else { sizes.next().unwrap_or(0) },
            comment: step.comment().clone().unwrap_or_default(),
        };
        let mut entries: Vec<HistoryEntry> = steps.iter().map(entry).collect();
        entries.reverse();
        let mut of_step = Some(image);
        for entry in &mut entries {
            let Some(image) = of_step else { break };
            entry.id.clone_from(&image.id);
            entry.tags = familiar(&image.tags);
            of_step = image.parent.as_deref().and_then(|parent| self.resolve(parent));
        }
        Ok(entries)
    }

    /// Bytes of the files of all layers, each counted once.
    pub fn layers_size(&self) -> u64 {
        let mut seen = HashSet::new();
        let images = self.list();
        let layers = images.iter().flat_map(|image| image.chain.iter().zip(&image.layers));
        layers.filter(|(chain, _)| seen.insert(chain.as_str())).map(|(_, layer)| layer.content).sum()
    }

    /// Bytes that each image shares with others, by id.
    pub fn shared_sizes(&self) -> HashMap<String, u64> {
        let images = self.list();
        let mut users: HashMap<&str, usize> = HashMap::new();
        images.iter().flat_map(|image| &image.chain).for_each(|chain| *users.entry(chain).or_default() += 1);
        let shared = |image: &ImageRecord| {
            let layers = image.chain.iter().zip(&image.layers);
            layers.filter(|(chain, _)| users.get(chain.as_str()) > Some(&1)).map(|(_, layer)| layer.content).sum()
        };
        images.iter().map(|image| (image.id.clone(), shared(image))).collect()
    }

    /// Where an image's layers are, as `docker image inspect` names them under `GraphDriver.Data`.
    pub fn graph_data(&self, image: &ImageRecord) -> Vec<(&'static str, String)> {
        let paths: Vec<String> =
            image.chain.iter().rev().map(|chain| self.layers().path(chain).display().to_string()).collect();
        let Some((top, below)) = paths.split_first() else { return Vec::new() };
        let mut data = vec![("MergedDir", format!("{top}/merged")), ("UpperDir", top.clone())];
        data.push(("WorkDir", format!("{top}/work")));
        if !below.is_empty() {
            data.insert(0, ("LowerDir", below.join(":")));
        }
        data
    }
}

fn seconds(text: Option<&str>) -> i64 {
    text.and_then(|t| t.parse::<pintle_clock::Timestamp>().ok()).map_or(0, |time| time.as_second())
}

fn familiar(names: &[String]) -> Vec<String> {
    names.iter().filter_map(|name| name.parse::<Reference>().ok()).map(|name| name.familiar()).collect()
}
