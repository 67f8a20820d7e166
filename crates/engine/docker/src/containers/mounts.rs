//! Works out what is mounted into a container: binds, volumes of the image and of others, tmpfs.

use super::record::{KeptMount, MountPoint};
use crate::daemon::Daemon;
use crate::error::{DockerError, Result};
use crate::model::{Config, HostConfig, Mount};
use crate::volumes::{ANONYMOUS, CreateRequest};
use pintle_linux::path::lexical;
use pintle_runtime::SnapshotMounts;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Component, Path};

/// A bind as `-v` writes it: `SOURCE:DESTINATION[:MODE]` or `DESTINATION`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bind {
    source: String,
    destination: String,
    mode: String,
}

fn invalid_spec(text: &str) -> DockerError {
    DockerError::invalid(format!("invalid volume specification: '{text}'"))
}

fn parse_bind(text: &str) -> Result<Bind> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, mode) = match parts.as_slice() {
        [destination] => ("", *destination, ""),
        [source, destination] => (*source, *destination, ""),
        [source, destination, mode] => (*source, *destination, *mode),
        _ => return Err(invalid_spec(text)),
    };
    if destination.is_empty() || (parts.len() > 1 && source.is_empty()) {
        return Err(invalid_spec(text));
    }
    check_mode(mode)?;
    check_destination(destination, text)?;
    Ok(Bind { source: source.to_owned(), destination: clean(destination), mode: mode.to_owned() })
}

fn check_destination(destination: &str, spec: &str) -> Result<()> {
    if !destination.starts_with('/') {
        return Err(DockerError::invalid(format!(
            "invalid volume specification: '{spec}': invalid mount config for type \"volume\": invalid mount path: \
             '{destination}' mount path must be absolute"
        )));
    }
    if clean(destination) == "/" {
        return Err(DockerError::invalid(format!("invalid volume specification: '{spec}': destination can't be '/'")));
    }
    Ok(())
}

/// Each word of a mode once, of those that Linux has.
fn check_mode(mode: &str) -> Result<()> {
    let bad = || DockerError::invalid(format!("invalid mode: {mode}"));
    let groups: [&[&str]; 6] = [
        &["rw", "ro"],
        &["z", "Z"],
        &["shared", "rshared", "slave", "rslave", "private", "rprivate"],
        &["nocopy"],
        &["consistent", "cached", "delegated", "default"],
        &["rro"],
    ];
    let mut seen = [false; 6];
    for word in mode.split(',').filter(|_| !mode.is_empty()) {
        let group = groups.iter().position(|g| g.contains(&word)).ok_or_else(bad)?;
        if std::mem::replace(&mut seen[group], true) {
            return Err(bad());
        }
    }
    Ok(())
}

fn clean(path: &str) -> String {
    format!("/{}", lexical(Path::new(path)).display())
}

fn has(mode: &str, word: &str) -> bool {
    mode.split(',').any(|w| w == word)
}

fn propagation(mode: &str) -> String {
    let known = ["shared", "rshared", "slave", "rslave", "private", "rprivate"];
    mode.split(',').find(|w| known.contains(w)).unwrap_or("rprivate").to_owned()
}

/// What is mounted where; later ones of the same place win, as with Docker.
type Points = BTreeMap<String, KeptMount>;

impl Daemon {
    /// Everything that is mounted into a new container. Volumes are made where they are missing, and filled from the
    /// image.
    pub(super) async fn resolve_mounts(
        &self,
        config: &mut Config,
        host: &mut HostConfig,
        id: &str,
        layer: &SnapshotMounts,
    ) -> Result<Vec<KeptMount>> {
        let mut points = Points::new();
        self.add_from_others(host, &mut points)?;
        for text in host.binds.iter().flatten() {
            let bind = parse_bind(text)?;
            let kept = self.bind(&bind, &host.volume_driver, id).await?;
            duplicate(&points, &kept, host)?;
            points.insert(bind.destination, kept);
        }
        for mount in host.mounts.iter().flatten() {
            let kept = self.long_form(mount, id).await?;
            if points.contains_key(&kept.point.destination) && !host.volumes_from.iter().flatten().any(|_| true) {
                return Err(DockerError::invalid(format!("Duplicate mount point: {}", kept.point.destination)));
            }
            points.insert(kept.point.destination.clone(), kept);
        }
        for (target, options) in host.tmpfs.iter().flatten() {
            let kept = tmpfs(target, options)?;
            duplicate(&points, &kept, host)?;
            points.insert(kept.point.destination.clone(), kept);
        }
        for target in config.volumes.iter().flatten().map(|(target, _)| clean(target)) {
            if let Entry::Vacant(place) = points.entry(target) {
                let kept = self.anonymous(place.key(), &host.volume_driver, id).await?;
                place.insert(kept);
            }
        }
        let mounts: Vec<KeptMount> = points.into_values().collect();
        self.fill_volumes(&mounts, layer).await?;
        Ok(mounts)
    }

    /// `--volumes-from CONTAINER[:ro|rw]`
    fn add_from_others(&self, host: &HostConfig, points: &mut Points) -> Result<()> {
        for text in host.volumes_from.iter().flatten() {
            let (name, mode) = text.split_once(':').unwrap_or((text, ""));
            if name.is_empty() {
                return Err(DockerError::invalid("malformed volumes-from specification: cannot be empty"));
            }
            if !matches!(mode, "" | "ro" | "rw" | "z" | "Z") {
                return Err(DockerError::invalid(format!("invalid mode for volumes-from: {mode}")));
            }
            let other = self.container(name).map_err(|e| match e.status {
                // By "not found" a client would think that the image is missing.
                404 => DockerError::invalid(e.message),
                _ => e,
            })?;
            for mut kept in other.look(|r| r.mounts.clone()) {
                if kept.point.kind == "tmpfs" {
                    continue;
                }
                kept.point.writable &= mode != "ro";
                kept.no_copy = true;
                points.insert(kept.point.destination.clone(), kept);
            }
        }
        Ok(())
    }

    async fn bind(&self, bind: &Bind, driver: &str, id: &str) -> Result<KeptMount> {
        let writable = !has(&bind.mode, "ro") && !has(&bind.mode, "rro");
        let point = MountPoint {
            destination: bind.destination.clone(),
            mode: bind.mode.clone(),
            writable,
            ..MountPoint::default()
        };
        if bind.source.starts_with('/') {
            let point = MountPoint {
                kind: "bind".to_owned(),
                source: clean(&bind.source),
                propagation: propagation(&bind.mode),
                ..point
            };
            return Ok(KeptMount { point, create_source: true, ..KeptMount::default() });
        }
        if bind.source.is_empty() {
            return self.anonymous(&bind.destination, driver, id).await;
        }
        let request =
            CreateRequest { name: bind.source.clone(), driver: driver.to_owned(), ..CreateRequest::default() };
        let source = self.use_volume(request).await?;
        let mode = if bind.mode.is_empty() { "z".to_owned() } else { bind.mode.clone() };
        let point = volume_point(MountPoint { mode, ..point }, &bind.source, source, driver);
        Ok(KeptMount { point, no_copy: has(&bind.mode, "nocopy"), ..KeptMount::default() })
    }

    /// A volume that is made for one container.
    async fn anonymous(&self, target: &str, driver: &str, id: &str) -> Result<KeptMount> {
        let name = super::create::new_id();
        let request = CreateRequest {
            name: name.clone(),
            driver: driver.to_owned(),
            labels: Some(BTreeMap::from([(ANONYMOUS.to_owned(), String::new())])),
            made_for: id.to_owned(),
            ..CreateRequest::default()
        };
        let source = self.use_volume(request).await?;
        let point = MountPoint { destination: target.to_owned(), writable: true, ..MountPoint::default() };
        let point = volume_point(point, &name, source, driver);
        Ok(KeptMount { point, ..KeptMount::default() })
    }

    async fn long_form(&self, mount: &Mount, id: &str) -> Result<KeptMount> {
        check_long_form(mount)?;
        let point = MountPoint {
            kind: mount.kind.clone(),
            destination: clean(&mount.target),
            writable: !mount.read_only,
            ..MountPoint::default()
        };
        match mount.kind.as_str() {
            "bind" => Ok(bind_in_long_form(mount, point)),
            "tmpfs" => Ok(tmpfs_in_long_form(mount, point)),
            "image" => {
                let image = self.image_of(&mount.source, "")?;
                let point = MountPoint { name: mount.source.clone(), source: image.id, writable: false, ..point };
                let sub_path = mount.image_options.clone().unwrap_or_default().subpath;
                Ok(KeptMount { point, sub_path, ..KeptMount::default() })
            }
            _ => self.volume_in_long_form(mount, point, id).await,
        }
    }

    async fn volume_in_long_form(&self, mount: &Mount, point: MountPoint, id: &str) -> Result<KeptMount> {
        let options = mount.volume_options.clone().unwrap_or_default();
        let driver = options.driver_config.unwrap_or_default();
        let kept = KeptMount { no_copy: options.no_copy, sub_path: options.subpath, ..KeptMount::default() };
        if mount.source.is_empty() {
            let made = self.anonymous(&point.destination, &driver.name, id).await?;
            let point = MountPoint { writable: point.writable, ..made.point };
            return Ok(KeptMount { point, ..kept });
        }
        let request = CreateRequest {
            name: mount.source.clone(),
            driver: driver.name.clone(),
            driver_opts: driver.options,
            labels: options.labels.filter(|l| !l.is_empty()),
            ..CreateRequest::default()
        };
        let source = self.use_volume(request).await?;
        let point = MountPoint { mode: "z".to_owned(), ..point };
        Ok(KeptMount { point: volume_point(point, &mount.source, source, &driver.name), ..kept })
    }
}

fn volume_point(point: MountPoint, name: &str, source: String, driver: &str) -> MountPoint {
    let driver = if driver.is_empty() { "local" } else { driver };
    MountPoint { kind: "volume".to_owned(), name: name.to_owned(), source, driver: driver.to_owned(), ..point }
}

fn duplicate(points: &Points, kept: &KeptMount, host: &HostConfig) -> Result<()> {
    let taken = points.contains_key(&kept.point.destination);
    if taken && host.volumes_from.is_none() {
        return Err(DockerError::invalid(format!("Duplicate mount point: {}", kept.point.destination)));
    }
    Ok(())
}

fn tmpfs(target: &str, options: &str) -> Result<KeptMount> {
    if !target.starts_with('/') {
        return Err(DockerError::invalid(format!(
            "invalid mount config for type \"tmpfs\": invalid mount path: '{target}' mount path must be absolute"
        )));
    }
    let words: Vec<String> = options.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect();
    let point = MountPoint {
        kind: "tmpfs".to_owned(),
        destination: clean(target),
        mode: options.to_owned(),
        writable: !words.iter().any(|w| w == "ro"),
        ..MountPoint::default()
    };
    Ok(KeptMount { point, tmpfs_options: words, ..KeptMount::default() })
}

fn check_long_form(mount: &Mount) -> Result<()> {
    let bad = |why: String| {
        let kind = &mount.kind;
        Err(DockerError::invalid(format!("invalid mount config for type \"{kind}\": {why}")))
    };
    if mount.target.is_empty() {
        return bad("field Target must not be empty".to_owned());
    }
    if clean(&mount.target) == "/" {
        return bad("invalid specification: destination can't be '/'".to_owned());
    }
    if !mount.target.starts_with('/') {
        return bad(format!("invalid mount path: '{}' mount path must be absolute", mount.target));
    }
    match mount.kind.as_str() {
        "bind" if mount.source.is_empty() => bad("field Source must not be empty".to_owned()),
        "bind" if !mount.source.starts_with('/') => {
            bad(format!("invalid mount path: '{}' mount path must be absolute", mount.source))
        }
        "bind" => {
            let create = mount.bind_options.as_ref().is_some_and(|o| o.create_mountpoint);
            if !create && !Path::new(&mount.source).exists() {
                return bad(format!("bind source path does not exist: {}", mount.source));
            }
            Ok(())
        }
        "tmpfs" if !mount.source.is_empty() => bad("field Source must not be specified".to_owned()),
        "tmpfs" => Ok(()),
        "volume" => {
            let part = mount.volume_options.as_ref().map(|o| o.subpath.as_str()).unwrap_or_default();
            if mount.source.is_empty() && !part.is_empty() {
                return bad("must not set Subpath when using anonymous volumes".to_owned());
            }
            if mount.source.is_empty() && mount.read_only {
                return bad("must not set ReadOnly mode when using anonymous volumes".to_owned());
            }
            if is_local(part) { Ok(()) } else { bad(OUTSIDE.to_owned()) }
        }
        "image" if mount.source.is_empty() => bad("field Source must not be empty".to_owned()),
        "image" => {
            let part = mount.image_options.as_ref().map(|o| o.subpath.as_str()).unwrap_or_default();
            if is_local(part) { Ok(()) } else { bad(OUTSIDE.to_owned()) }
        }
        "cluster" => Err(DockerError::unsupported("a mount of type cluster")),
        _ => bad("mount type unknown".to_owned()),
    }
}

const OUTSIDE: &str = "subpath must be a relative path within the volume";

/// Whether a path that is joined to another stays below it.
fn is_local(path: &str) -> bool {
    !path.starts_with('/') && !Path::new(path).components().any(|part| part == Component::ParentDir)
}

fn bind_in_long_form(mount: &Mount, point: MountPoint) -> KeptMount {
    let options = mount.bind_options.clone().unwrap_or_default();
    let propagation = if options.propagation.is_empty() { "rprivate".to_owned() } else { options.propagation };
    KeptMount {
        point: MountPoint { source: clean(&mount.source), propagation, ..point },
        non_recursive: options.non_recursive,
        shallow_readonly: options.read_only_non_recursive,
        create_source: options.create_mountpoint,
        ..KeptMount::default()
    }
}

fn tmpfs_in_long_form(mount: &Mount, point: MountPoint) -> KeptMount {
    let options = mount.tmpfs_options.clone().unwrap_or_default();
    let mut words = Vec::new();
    if options.size_bytes > 0 {
        words.push(format!("size={}", options.size_bytes));
    }
    if options.mode != 0 {
        words.push(format!("mode={:o}", options.mode));
    }
    if mount.read_only {
        words.push("ro".to_owned());
    }
    words.extend(options.options.into_iter().flatten().map(|pair| pair.join("=")));
    KeptMount { point, tmpfs_options: words, ..KeptMount::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_are_taken_apart() {
        let bind = parse_bind("/a:/b/../c:ro,z").unwrap();
        assert_eq!((bind.source.as_str(), bind.destination.as_str(), bind.mode.as_str()), ("/a", "/c", "ro,z"));
        assert_eq!(parse_bind("/data").unwrap().source, "");
        for (text, part) in [
            ("rel:/x:zz", "invalid mode: zz"),
            ("a:/x:ro,rw", "invalid mode: ro,rw"),
            ("a:b", "mount path must be absolute"),
            ("/a:/", "destination can't be '/'"),
            ("a:b:c:d", "invalid volume specification"),
            (":/x", "invalid volume specification"),
        ] {
            let error = parse_bind(text).unwrap_err();
            assert!(error.message.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn broken_binds_are_refused() {
        pintle_noise::feed_text(&["/a:/b:ro", "v:/x:rw,z", "/data"], 500, |text| {
            // Whatever it is, nothing breaks, and what is taken is absolute.
            if let Ok(bind) = parse_bind(text) {
                assert!(bind.destination.starts_with('/'), "{text:?}");
            }
        });
    }
}
