//! Says whether a pattern such as `*.registry.io:8080/path` means an image. Pure.
//!
//! Source: `URLsMatchStr` of `pkg/credentialprovider`.

/// The registry in an image's name.
pub(super) fn registry(image: &str) -> &str {
    image.split('/').next().unwrap_or_default()
}

struct Parts<'a> {
    host: Vec<&'a str>,
    port: &'a str,
    path: &'a str,
}

fn parts(text: &str) -> Parts<'_> {
    let text = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let (host, path) = text.split_at(text.find('/').unwrap_or(text.len()));
    let (host, port) = host.split_once(':').unwrap_or((host, ""));
    Parts { host: host.split('.').collect(), port, path }
}

/// A star stands for a part of the host or some of one, never for more; paths count by how they begin.
pub(super) fn matches(pattern: &str, image: &str) -> bool {
    let (pattern, image) = (parts(pattern), parts(image));
    pattern.host.len() == image.host.len()
        && (pattern.port.is_empty() || pattern.port == image.port)
        && pattern.host.iter().zip(&image.host).all(|(glob, part)| part_matches(glob, part))
        && image.path.starts_with(pattern.path)
}

fn part_matches(glob: &str, text: &str) -> bool {
    let Some((start, rest)) = glob.split_once('*') else { return glob == text };
    let Some(mut left) = text.strip_prefix(start) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let end = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some(at) = left.find(piece) else { return false };
        left = &left[at + piece.len()..];
    }
    left.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_images() {
        for (pattern, image, expected) in [
            ("123456789.dkr.ecr.us-east-1.amazonaws.com", "123456789.dkr.ecr.us-east-1.amazonaws.com/web", true),
            ("*.azurecr.io", "r.azurecr.io/web", true),
            ("*.azurecr.io", "a.b.azurecr.io/web", false),
            ("*.*.registry.io", "a.b.registry.io/web", true),
            ("r*x.io", "registrx.io/web", true),
            ("registry.io:8080/path", "registry.io:8080/path/web", true),
            ("registry.io:8080/path", "registry.io/path/web", false),
            ("registry.io/path", "registry.io/other", false),
            ("registry.io", "registry.io:5000/web", true),
            ("docker.io", "docker.io/library/nginx", true),
        ] {
            assert_eq!(matches(pattern, image), expected, "{pattern} {image}");
        }
    }
}
