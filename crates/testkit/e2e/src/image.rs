//! An image for tests, made of the distribution's static busybox: no registry is needed.

use anyhow::{Context, Result};
use serde_json::json;
use std::path::Path;

/// The image's name.
pub const BUSYBOX: &str = "e2e/busybox:1";

const APPLETS: [&str; 37] = [
    "sh", "ash", "ls", "cat", "echo", "sleep", "tar", "wget", "nslookup", "nc", "id", "ps", "kill", "true", "false",
    "head", "tail", "dd", "date", "env", "hostname", "grep", "mkdir", "rm", "touch", "test", "printf", "seq", "stty",
    "tty", "wc", "httpd", "trap", "mount", "ip", "df", "timeout",
];

fn entry(builder: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(builder.append_data(&mut header, path, content)?)
}

fn directory(builder: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(builder.append_data(&mut header, path, std::io::empty())?)
}

fn layer() -> Result<Vec<u8>> {
    let found = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists());
    let busybox = std::fs::read(found.context("busybox is missing: install busybox-static")?)?;
    let mut builder = tar::Builder::new(Vec::new());
    for (path, mode) in [("bin/", 0o755), ("etc/", 0o755), ("tmp/", 0o1777), ("root/", 0o700)] {
        directory(&mut builder, path, mode)?;
    }
    entry(&mut builder, "bin/busybox", 0o755, &busybox)?;
    entry(
        &mut builder,
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    entry(&mut builder, "etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    for applet in APPLETS {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        builder.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    Ok(builder.into_inner()?)
}

/// Writes the image as `docker save` would.
pub(crate) fn write_archive(path: &Path, digest: impl Fn(&[u8]) -> Result<String>) -> Result<()> {
    write_image(path, BUSYBOX, &["sh"], digest)
}

/// The same under another name, and with another command.
pub(crate) fn write_image(
    path: &Path,
    name: &str,
    command: &[&str],
    digest: impl Fn(&[u8]) -> Result<String>,
) -> Result<()> {
    let layer = layer()?;
    let configuration = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Cmd": command },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer)?)] },
        "history": [{ "created": "2026-01-01T00:00:00Z", "created_by": "busybox" }],
    });
    let manifest = json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"] }]);
    let mut builder = tar::Builder::new(Vec::new());
    entry(&mut builder, "layer.tar", 0o644, &layer)?;
    entry(&mut builder, "config.json", 0o644, configuration.to_string().as_bytes())?;
    entry(&mut builder, "manifest.json", 0o644, manifest.to_string().as_bytes())?;
    std::fs::write(path, builder.into_inner()?).with_context(|| format!("write {}", path.display()))
}
