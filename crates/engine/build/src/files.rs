//! ADD and COPY as steps: where the files come from, what the history says, and the new layer.

use crate::builder::{is_git, is_url};
use crate::copy::{Item, Origin, Rules, find, owner, write, write_text};
use crate::dockerfile::{Copying, Inline};
use crate::error::{BuildError, Result, blocking};
use crate::mounted::{Layer, PREFIX};
use crate::root::Root;
use crate::stage::{Files, StageRun, needs_buildkit};
use crate::{checksum, paths};
use rustix::fs::{Timespec, Timestamps};
use std::path::Path;
use std::sync::Arc;

/// Everything that a copy needs until it is written.
struct Found {
    items: Vec<Item>,
    inline: Vec<Inline>,
    /// Kept until the files are copied: what the items are in.
    _layer: Option<Layer>,
    _downloads: Vec<tempfile::TempDir>,
}

impl StageRun<'_> {
    /// ADD or COPY.
    pub(crate) async fn copy(&mut self, name: &'static str, copying: Copying) -> Result<()> {
        if let Some(flag) = copying.refused.first().copied().or((!copying.checksum.is_empty()).then_some("checksum")) {
            return Err(needs_buildkit(flag));
        }
        let keep_owner = !copying.from.is_empty() && copying.chown.is_empty();
        let rules = Rules { unpack: name == "ADD", ..self.rules(&copying.chmod, keep_owner)? };
        let found = self.found(name, &copying).await.map_err(|e| {
            if e.code == -1 { BuildError { code: 0, ..e } } else { e.within(format_args!("{name} failed")) }
        })?;
        let count = found.items.len() + found.inline.len();
        if count == 0 {
            return Err(BuildError::new(format!("{name} failed: no source files were specified")));
        }
        if count > 1 && !copying.destination.ends_with('/') {
            return Err(BuildError::new(format!(
                "When using {name} with more than one source file, the destination must be a directory and end with a /"
            )));
        }
        let mut comment = format!("#(nop) {name} ");
        for (flag, value) in [("chown", &copying.chown), ("chmod", &copying.chmod)] {
            if !value.is_empty() {
                comment.push_str(&format!("--{flag}={value} "));
            }
        }
        comment.push_str(&format!("{} in {} ", sum_of(&found), copying.destination));
        let step = self.commented(&[&comment]);
        if self.cached(&step).await {
            return Ok(());
        }
        let slash = copying.destination.ends_with('/') && !copying.destination.starts_with('/');
        let destination = paths::below(&self.config.working_dir, &copying.destination);
        let destination = if slash { format!("{destination}/") } else { destination };
        let layer = self.new_layer().await?;
        let temporary = self.build.builder.temporary();
        let written = blocking(move || {
            let root = layer.root(&temporary)?;
            write_all(&root, &found, &destination, &copying.chown, rules)?;
            Ok(layer)
        });
        let layer = written.await?;
        self.list(step, Files::Layer(layer)).await
    }

    async fn found(&self, name: &str, copying: &Copying) -> Result<Found> {
        let (origin, layer) = self.origin(copying).await?;
        let (mut local, mut downloads, mut items) = (Vec::new(), Vec::new(), Vec::new());
        for source in &copying.sources {
            if is_git(source) && name == "ADD" {
                return Err(BuildError::new("git repositories as sources are not supported"));
            }
            if !is_url(source) {
                local.push(source.clone());
                continue;
            }
            if name != "ADD" {
                return Err(BuildError::new("source can't be a URL for COPY"));
            }
            let (directory, item) = self.download(source, &copying.destination).await?;
            downloads.push(directory);
            items.push(item);
        }
        let builder = Arc::clone(&self.build.builder);
        let local = blocking(move || {
            let mut items = Vec::new();
            for source in &local {
                let origin = origin.as_ref().ok_or_else(|| BuildError::new("missing build context"))?;
                items.extend(find(origin, source, &builder.sums)?);
            }
            Ok(items)
        });
        items.extend(local.await?);
        Ok(Found { items, inline: copying.inline.clone(), _layer: layer, _downloads: downloads })
    }

    /// Where local sources are: the context, a stage, or an image.
    async fn origin(&self, copying: &Copying) -> Result<(Option<Origin>, Option<Layer>)> {
        if copying.from.is_empty() {
            return Ok((self.build.context.clone().map(Origin::Context), None));
        }
        // Told without the instruction's name.
        let invalid = |e: BuildError| BuildError {
            code: -1,
            ..e.within(format_args!("invalid from flag value {}", copying.from))
        };
        let image = self.source_image(&copying.from).await.map_err(invalid)?;
        let builder = Arc::clone(&self.build.builder);
        let key = format!("{PREFIX}from-{}", crate::stage::new_id());
        blocking(move || {
            let layer = Layer::on(&builder.daemon.images, &image, key)?;
            let root = layer.root(&builder.temporary())?;
            Ok((Some(Origin::Image(Arc::new(root), image)), Some(layer)))
        })
        .await
    }

    async fn source_image(&self, name: &str) -> Result<String> {
        let current = self.start.index;
        if let Some(index) = self.build.stage_named(name, current) {
            return Ok(self.build.result(index).await?.image);
        }
        match name.parse::<i64>() {
            Ok(index) if usize::try_from(index) == Ok(current) => Err(BuildError::new("refers to current build stage")),
            Ok(index) => match usize::try_from(index).ok().filter(|index| *index < current) {
                Some(index) => Ok(self.build.result(index).await?.image),
                None => Err(BuildError::new("index out of bounds")),
            },
            Err(_) => self.image_named(name).await,
        }
    }

    async fn download(&self, url: &str, destination: &str) -> Result<(tempfile::TempDir, Item)> {
        let failed = |e: std::io::Error| BuildError::io(format_args!("download {url}"), e);
        let directory = tempfile::tempdir_in(self.build.builder.temporary()).map_err(failed)?;
        let file = directory.path().join("download");
        let downloaded = self.build.remote.download(url, &file, &self.output).await?;
        self.output.text("\n").await;
        let path = url.split("://").nth(1).unwrap_or_default().split(['?', '#']).next().unwrap_or_default();
        let path = path.split_once('/').map_or("", |(_, path)| path);
        let name = if path.is_empty() || path.ends_with('/') { &downloaded.file_name } else { path };
        let mut name = paths::base(name).to_owned();
        if name.is_empty() || name == "." || name == ".." {
            if destination.ends_with('/') {
                return Err(BuildError::new(format!("cannot determine filename for source {url}")));
            }
            name = "__unnamed__".to_owned();
        }
        let (root, modified) = (directory.path().join("root"), downloaded.modified);
        let item = blocking(move || {
            let failed = |e: std::io::Error| BuildError::io("keep a download", e);
            std::fs::create_dir(&root).map_err(failed)?;
            let target = root.join(&name);
            std::fs::rename(&file, &target).map_err(failed)?;
            let kept = std::fs::File::open(&target).map_err(failed)?;
            rustix::fs::fchmod(&kept, rustix::fs::Mode::from_raw_mode(0o600)).map_err(|e| failed(e.into()))?;
            let at = Timespec { tv_sec: modified, tv_nsec: 0 };
            let times = Timestamps { last_access: at, last_modification: at };
            rustix::fs::futimens(&kept, &times).map_err(|e| failed(e.into()))?;
            let origin = Origin::Download(Arc::new(Root::open(&root).map_err(failed)?));
            let found = find(&origin, &name, &Default::default())?;
            found.into_iter().next().ok_or_else(|| BuildError::new("the download is gone"))
        });
        Ok((directory, item.await?))
    }
}

/// What the history says of the sources.
fn sum_of(found: &Found) -> String {
    let inline = found.inline.iter().map(|inline| {
        let entry = checksum::Entry {
            name: inline.name.as_bytes(),
            mode: 0o644,
            size: inline.content.len() as u64,
            kind: b'0',
            ..checksum::Entry::default()
        };
        let mut summing = entry.sum_of(inline.content.as_bytes());
        // Memory does not fail.
        let _ = std::io::copy(&mut summing, &mut std::io::sink());
        format!("file:{}", summing.finish())
    });
    let sums: Vec<String> = found.items.iter().map(|item| item.sum.clone()).chain(inline).collect();
    match sums.as_slice() {
        [only] => only.clone(),
        all => checksum::of_all("multi", all),
    }
}

fn write_all(root: &Root, found: &Found, destination: &str, chown: &str, mut rules: Rules) -> Result<()> {
    if !chown.is_empty() {
        let owner = owner(root, chown)
            .map_err(|e| BuildError::new(format!("unable to convert uid/gid chown string to host mapping: {e}")))?;
        rules.owner = Some(owner);
    }
    let failed = |e| BuildError::io("failed to copy files", e);
    for item in &found.items {
        write(root, item, destination, rules).map_err(failed)?;
    }
    for inline in &found.inline {
        write_text(root, &inline.name, &inline.content, destination, rules).map_err(failed)?;
    }
    // The destination's directory is there even when it stays empty.
    if destination.ends_with('/') {
        root.make_directory(Path::new(destination), |_| Ok(())).map_err(failed)?;
    }
    Ok(())
}
