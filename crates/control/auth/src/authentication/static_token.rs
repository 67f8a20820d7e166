//! Tokens of a file: `token,user,uid,"group1,group2"` a line.
//!
//! Source: apiserver's `pkg/authentication/token/tokenfile`.

use super::same;
use crate::User;
use crate::configuration::{ConfigurationError, read_file};
use std::path::Path;

/// Bearer tokens with the users they stand for.
#[derive(Clone, Debug, Default)]
pub struct StaticTokens {
    entries: Vec<(String, User)>,
}

impl StaticTokens {
    pub fn new(entries: Vec<(String, User)>) -> Self {
        Self { entries: entries.into_iter().map(|(token, user)| (token, user.authenticated())).collect() }
    }

    /// Reads a file in CSV.
    pub fn load(path: &Path) -> Result<Self, ConfigurationError> {
        let mut entries = Vec::new();
        for (at, line) in read_file(path)?.lines().enumerate() {
            let fields = fields(line);
            let invalid = |why: &str| ConfigurationError::Invalid {
                what: format!("{}, line {}", path.display(), at + 1),
                why: why.to_owned(),
            };
            match fields.as_slice() {
                [only] if only.is_empty() => {}
                [token, name, uid, rest @ ..] if !token.is_empty() => {
                    let groups = rest.first().map(|g| g.split(',').map(|g| g.trim().to_owned()).collect());
                    let groups: Vec<String> = groups.unwrap_or_default();
                    let groups = groups.into_iter().filter(|g| !g.is_empty()).collect();
                    entries.push((
                        token.clone(),
                        User { name: name.clone(), uid: uid.clone(), groups, ..User::default() },
                    ));
                }
                [_, _, _, ..] => tracing::warn!(file = %path.display(), line = at + 1, "an empty token was skipped"),
                _ => return Err(invalid("a token needs at least 3 columns: token, user name, user uid")),
            }
        }
        Ok(Self::new(entries))
    }

    pub fn extend(&mut self, other: Self) {
        self.entries.extend(other.entries);
    }

    pub fn user_of(&self, token: &str) -> Option<&User> {
        self.entries.iter().find(|(known, _)| same(known.as_bytes(), token.as_bytes())).map(|(_, user)| user)
    }
}

/// The fields of a line of CSV, quotes taken away.
fn fields(line: &str) -> Vec<String> {
    let (mut out, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut characters = line.trim_end_matches('\r').chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(std::mem::take(&mut field).trim().to_owned()),
            other => field.push(other),
        }
    }
    out.push(field.trim().to_owned());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<StaticTokens, ConfigurationError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.csv");
        std::fs::write(&path, text).unwrap();
        StaticTokens::load(&path)
    }

    #[test]
    fn lines_are_tokens() {
        let tokens = load("t1,jane,7,\"dev, ops\"\nt2,joe,8\n\n").unwrap();
        let jane = tokens.user_of("t1").unwrap();
        assert_eq!((jane.name.as_str(), jane.uid.as_str()), ("jane", "7"));
        assert_eq!(jane.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(tokens.user_of("t2").unwrap().name, "joe");
        assert!(tokens.user_of("t").is_none() && tokens.user_of("").is_none());
        assert!(load("t1,jane").unwrap_err().to_string().contains("line 1"));
    }
}
