//! Volumes of NFS servers, mounted by the machine's own mount command, which knows how to speak to them.

use super::Why;
use crate::host::Host;
use pintle_types::k8s::api::core::v1::NFSVolumeSource;
use std::path::Path;
use std::time::Duration;

/// A server that doesn't answer must not hold the pod's actor for ever.
const PATIENCE: Duration = Duration::from_secs(120);

/// Mounts the export; succeeds when something is mounted there already.
pub async fn set_up(
    host: &Host,
    source: &NFSVolumeSource,
    options: &[String],
    read_only: bool,
    path: &Path,
) -> Result<(), Why> {
    if host.mounter.is_mounted(path).map_err(Why::file("look at", path))? {
        return Ok(());
    }
    std::fs::create_dir_all(path).map_err(Why::file("make directory", path))?;
    let arguments = arguments(source, options, read_only, path);
    let mut command = tokio::process::Command::new("mount");
    command.args(&arguments).stdin(std::process::Stdio::null()).kill_on_drop(true);
    let words = arguments.join(" ");
    let failed = |why: String, output: &str| {
        Why::Invalid(format!(
            "mount failed: {why}\nMounting command: mount\nMounting arguments: {words}\nOutput: {output}\n"
        ))
    };
    match tokio::time::timeout(PATIENCE, command.output()).await {
        Err(_) => Err(failed(format!("no answer within {} s", PATIENCE.as_secs()), "")),
        Ok(Err(error)) => Err(failed(error.to_string(), "")),
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let text = [output.stdout, output.stderr].concat();
            let code = output.status.code().map_or_else(|| "killed".to_owned(), |code| format!("exit status {code}"));
            Err(failed(code, String::from_utf8_lossy(&text[..text.len().min(4096)]).trim_end()))
        }
    }
}

fn arguments(source: &NFSVolumeSource, options: &[String], read_only: bool, path: &Path) -> Vec<String> {
    // A server that is an IPv6 address stands in brackets.
    let bare_v6 = source.server.contains(':') && !source.server.starts_with('[');
    let server = if bare_v6 { format!("[{}]", source.server) } else { source.server.clone() };
    let mut all: Vec<&str> = options.iter().map(String::as_str).collect();
    if (read_only || source.read_only == Some(true)) && !all.contains(&"ro") {
        all.push("ro");
    }
    let mut arguments = vec!["-t".to_owned(), "nfs".to_owned()];
    if !all.is_empty() {
        arguments.extend(["-o".to_owned(), all.join(",")]);
    }
    arguments.extend([format!("{server}:{}", source.path), path.to_string_lossy().into_owned()]);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_command_gets_what_the_volume_says() {
        let source = |server: &str, read_only| NFSVolumeSource { server: server.into(), path: "/e".into(), read_only };
        let of = |source, options: &[&str], read_only| {
            let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
            arguments(&source, &options, read_only, Path::new("/p")).join(" ")
        };
        assert_eq!(of(source("s", None), &[], false), "-t nfs s:/e /p");
        assert_eq!(of(source("s", Some(true)), &["nfsvers=4.1"], false), "-t nfs -o nfsvers=4.1,ro s:/e /p");
        assert_eq!(of(source("fd00::1", None), &["ro"], true), "-t nfs -o ro [fd00::1]:/e /p");
    }
}
