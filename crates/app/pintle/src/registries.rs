//! Reads how registries are asked from the settings: mirrors, and those that need not show a certificate.

use anyhow::{Result, bail, ensure};
use pintle_cli::Settings;
use pintle_distribution::Options;

/// What `--registry-mirror` and `--insecure-registry` say.
pub(crate) fn options(settings: &Settings) -> Result<Options> {
    let mut options = Options::default();
    for mirror in list(settings.registry_mirror.as_deref()) {
        let mirror = mirror_of(mirror)?;
        // Who names a mirror without TLS means it.
        options.insecure.extend(mirror.strip_prefix("http://").map(str::to_owned));
        options.mirrors.push(mirror);
    }
    for registry in list(settings.insecure_registry.as_deref()) {
        ensure!(
            !registry.contains("://"),
            "--insecure-registry {registry:?}: a registry is HOST[:PORT] or a range of addresses, without a scheme"
        );
        options.insecure.push(registry.to_owned());
    }
    Ok(options)
}

fn list(text: Option<&str>) -> impl Iterator<Item = &str> {
    text.unwrap_or_default().split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

/// The rules are those of dockerd: a server alone, as images of docker.io are asked for by their own paths.
fn mirror_of(mirror: &str) -> Result<String> {
    let bad = |why: &str| format!("--registry-mirror {mirror:?}: {why}");
    let Some((scheme, rest)) = mirror.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
    else {
        bail!(bad("a mirror is https://HOST[:PORT] or http://HOST[:PORT]"));
    };
    let server = rest.trim_end_matches('/');
    ensure!(!server.is_empty(), bad("the server is missing"));
    ensure!(!server.contains(['/', '?', '#']), bad("a mirror has no path, query or fragment"));
    ensure!(!server.contains('@'), bad("a mirror has no user or password"));
    Ok(format!("{scheme}://{server}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_servers() {
        assert_eq!(mirror_of("https://mirror.example:5000/").unwrap(), "https://mirror.example:5000");
        for bad in ["mirror.example", "ftp://x", "https://", "https://x/path", "https://u:p@x", "https://x?y"] {
            assert!(mirror_of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_are_taken_apart() {
        assert_eq!(list(Some(" a:5000, 10.0.0.0/8,,")).collect::<Vec<_>>(), ["a:5000", "10.0.0.0/8"]);
    }
}
