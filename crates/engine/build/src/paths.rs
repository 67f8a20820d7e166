//! Paths as Go's `path/filepath` cleans and matches them, because Dockerfiles and ignore files are written for that.

/// The shortest equal path by its letters.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".into(),
        (false, false) => joined,
    }
}

/// `path` below `base`, unless it is absolute itself; both as seen from the root.
pub fn below(base: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { clean(&format!("/{base}/{path}")) }
}

/// The last part of a path.
pub fn base(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// Whether a source of ADD or COPY is a pattern.
pub fn has_wildcards(path: &str) -> bool {
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

/// `filepath.Match`.
///
/// # Errors
/// When the pattern is malformed, as far as matching looked at it.
pub fn matches(pattern: &str, name: &str) -> Result<bool, BadPattern> {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let mut rest = pattern.as_slice();
    let mut text = name.as_slice();
    while !rest.is_empty() {
        let (star, chunk, after) = chunk(rest);
        rest = after;
        if star && chunk.is_empty() {
            return Ok(!text.contains(&'/'));
        }
        let (left, ok) = match_chunk(chunk, text)?;
        if ok && (left.is_empty() || !rest.is_empty()) {
            text = left;
            continue;
        }
        let skipped = if star { skip(chunk, text, rest.is_empty())? } else { None };
        match skipped {
            Some(left) => text = left,
            None => {
                // The rest is only checked.
                while !rest.is_empty() {
                    let (_, chunk, after) = self::chunk(rest);
                    rest = after;
                    match_chunk(chunk, &[])?;
                }
                return Ok(false);
            }
        }
    }
    Ok(text.is_empty())
}

/// The pattern cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

/// A star may take characters away before the chunk matches, but no slash.
fn skip<'t>(chunk: &[char], text: &'t [char], last: bool) -> Result<Option<&'t [char]>, BadPattern> {
    for (at, c) in text.iter().enumerate() {
        if *c == '/' {
            return Ok(None);
        }
        let (left, ok) = match_chunk(chunk, &text[at + 1..])?;
        if ok && (!last || left.is_empty()) {
            return Ok(Some(left));
        }
    }
    Ok(None)
}

fn chunk(pattern: &[char]) -> (bool, &[char], &[char]) {
    let stars = pattern.iter().take_while(|c| **c == '*').count();
    let pattern = &pattern[stars..];
    let (mut in_range, mut at) = (false, 0);
    while at < pattern.len() {
        match pattern[at] {
            '\\' => at += 1,
            '[' => in_range = true,
            ']' => in_range = false,
            '*' if !in_range => break,
            _ => {}
        }
        at += 1;
    }
    let at = at.min(pattern.len());
    (stars > 0, &pattern[..at], &pattern[at..])
}

/// Matches without stars; a text that does not match still has its pattern read to the end.
fn match_chunk<'t>(mut chunk: &[char], mut text: &'t [char]) -> Result<(&'t [char], bool), BadPattern> {
    let mut failed = false;
    while let Some((c, after)) = chunk.split_first() {
        failed |= text.is_empty();
        match c {
            '[' => {
                let found = if failed { None } else { text.split_first() };
                if let Some((_, left)) = found {
                    text = left;
                }
                let (ok, left) = range(after, found.map(|(c, _)| *c))?;
                failed |= !ok;
                chunk = left;
            }
            '?' => {
                if !failed {
                    failed = text[0] == '/';
                    text = &text[1..];
                }
                chunk = after;
            }
            _ => {
                let (c, after) = if *c == '\\' { after.split_first().ok_or(BadPattern)? } else { (c, after) };
                if !failed {
                    failed = text[0] != *c;
                    text = &text[1..];
                }
                chunk = after;
            }
        }
    }
    Ok((text, !failed))
}

fn range(mut chunk: &[char], c: Option<char>) -> Result<(bool, &[char]), BadPattern> {
    let negated = chunk.first() == Some(&'^');
    chunk = &chunk[usize::from(negated)..];
    let (mut found, mut count) = (false, 0);
    loop {
        if chunk.first() == Some(&']') && count > 0 {
            return Ok((c.is_some() && found != negated, &chunk[1..]));
        }
        let (low, after) = escaped(chunk)?;
        let (high, after) = match after.first() {
            Some('-') => escaped(&after[1..])?,
            _ => (low, after),
        };
        found |= c.is_some_and(|c| low <= c && c <= high);
        chunk = after;
        count += 1;
    }
}

fn escaped(chunk: &[char]) -> Result<(char, &[char]), BadPattern> {
    let (c, after) = match chunk {
        [] | ['-' | ']', ..] => return Err(BadPattern),
        ['\\', c, after @ ..] => (*c, after),
        ['\\'] => return Err(BadPattern),
        [c, after @ ..] => (*c, after),
    };
    if after.is_empty() {
        return Err(BadPattern);
    }
    Ok((c, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        for (path, shown) in
            [("", "."), ("a//b/../c/.", "a/c"), ("/../a", "/a"), ("../../a", "../../a"), ("/", "/"), ("a/..", ".")]
        {
            assert_eq!(clean(path), shown, "{path}");
        }
        assert_eq!((below("/w", "a/../b"), below("/w", "/x/"), base("a/b/")), ("/w/b".into(), "/x/".into(), "b"));
    }

    #[test]
    fn names_match_as_in_go() {
        for (pattern, name, expected) in [
            ("abc", "abc", Ok(true)),
            ("*", "abc", Ok(true)),
            ("*c", "abc", Ok(true)),
            ("a*", "ab/c", Ok(false)),
            ("a*/b", "abc/b", Ok(true)),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", Ok(true)),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", Ok(false)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Ok(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Ok(false)),
            ("ab[c]", "abc", Ok(true)),
            ("ab[b-d]", "abc", Ok(true)),
            ("ab[^b-d]", "abc", Ok(false)),
            ("ab[^e-g]", "abc", Ok(true)),
            ("a\\*b", "a*b", Ok(true)),
            ("a?b", "a/b", Ok(false)),
            ("a[^a]b", "a☺b", Ok(true)),
            ("[\\]a]", "]", Ok(true)),
            ("[x\\-]", "-", Ok(true)),
            ("[]a]", "]", Err(BadPattern)),
            ("[-]", "-", Err(BadPattern)),
            ("[", "a", Err(BadPattern)),
            ("a[", "ab", Err(BadPattern)),
            ("a\\", "ab", Err(BadPattern)),
            ("*x", "xxx", Ok(true)),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
