//! Names of all sorts: labels and their values, variables, keys, paths.

use super::Errors;
use crate::tree;
use pintle_types::{field::Path, names};
use serde_json::Value;

pub(crate) const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character \
     (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and \
     end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
     '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn edge(c: Option<char>) -> bool {
    c.is_some_and(|c| c.is_ascii_alphanumeric())
}

fn is_name_text(text: &str) -> bool {
    edge(text.chars().next())
        && edge(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// What is wrong with a qualified name: an optional subdomain and a slash, then a name of at most 63 bytes.
pub(crate) fn qualified(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                let words = |why: &String| format!("prefix part {}", why.replace("253 characters", "253 bytes"));
                errors.extend(names::dns1123_subdomain_errors(prefix).iter().map(words));
            }
            *name
        }
        _ => {
            return vec![format!(
                "a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        errors.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_name_text(name) {
        errors.push(format!("name part {QUALIFIED}"));
    }
    errors
}

/// What is wrong with the value of a label.
pub(crate) fn label_value(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 63 {
        errors.push("must be no more than 63 bytes".to_owned());
    }
    if !text.is_empty() && !is_name_text(text) {
        errors.push(LABEL_VALUE.to_owned());
    }
    errors
}

/// Labels, in the order of their keys: errors carry the path of the map.
pub(crate) fn labels(errors: &mut Errors, path: &Path, owner: &Value, field: &str) {
    for (key, value) in tree::entries(owner, field) {
        errors.invalid_for(path, key, qualified(key));
        let value = value.as_str().unwrap_or("");
        errors.invalid_for(path, value, label_value(value));
    }
}

/// Annotations: keys are qualified names of any case, all together at most 256 KiB.
pub(crate) fn annotations(errors: &mut Errors, path: &Path, owner: &Value) {
    const MAX: usize = 256 * 1024;
    let mut total = 0;
    for (key, value) in tree::entries(owner, "annotations") {
        errors.invalid_for(path, key, qualified(&key.to_lowercase()));
        total += key.len() + value.as_str().map_or(0, str::len);
    }
    if total > MAX {
        errors.too_long(path, MAX);
    }
}

/// What is wrong with a key of a config map or a secret.
pub(crate) fn config_key(key: &str) -> Vec<String> {
    const WORDS: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  \
                         or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
    let mut errors = Vec::new();
    if key.len() > 253 {
        errors.push("must be no more than 253 characters".to_owned());
    }
    if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        errors.push(WORDS.to_owned());
    }
    match key {
        "." | ".." => errors.push(format!("must not be '{key}'")),
        _ if key.starts_with("..") => errors.push("must not start with '..'".to_owned()),
        _ => {}
    }
    errors
}

/// What is wrong with the name of an environment variable: any printable ASCII but `=`.
pub(crate) fn env_var(name: &str) -> Vec<String> {
    const WORDS: &str =
        "a valid environment variable name must consist only of printable ASCII characters other than '='";
    if name.is_empty() || !name.chars().all(|c| matches!(c, ' '..='~') && c != '=') {
        return vec![format!(
            "{WORDS} (e.g. 'my-env-name',  or 'MY_ENV.NAME',  or 'MyEnvName1', regex used for validation \
                             is '^[ -<>-~]+$')"
        )];
    }
    Vec::new()
}

/// What is wrong with a C identifier.
pub(crate) fn c_identifier(name: &str) -> Vec<String> {
    let ok = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if ok {
        return Vec::new();
    }
    vec![
        "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric \
         characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is \
         '[A-Za-z_][A-Za-z0-9_]*')"
            .to_owned(),
    ]
}

/// A relative path that stays below where it starts.
pub(crate) fn local_path(errors: &mut Errors, path: &Path, target: &str) {
    if target.starts_with('/') {
        errors.invalid(path, target, "must be a relative path");
    }
    no_backsteps(errors, path, target);
}

/// A path without `..` parts.
pub(crate) fn no_backsteps(errors: &mut Errors, path: &Path, target: &str) {
    if target.replace('\\', "/").split('/').any(|part| part == "..") {
        errors.invalid(path, target, "must not contain '..'");
    }
}

/// A relative path whose first part doesn't begin with two dots.
pub(crate) fn local_nonreserved_path(errors: &mut Errors, path: &Path, target: &str) {
    local_path(errors, path, target);
    if target.starts_with("..") && !target.split('/').any(|part| part == "..") {
        errors.invalid(path, target, "must not start with '..'");
    }
}

/// A subdomain that may contain underscores, as DNS search paths may.
pub(crate) fn subdomain_with_underscore(text: &str) -> Vec<String> {
    let label = |part: &str| {
        let part = part.strip_prefix('_').unwrap_or(part);
        let low = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        part.starts_with(low) && part.ends_with(low) && part.chars().all(|c| low(c) || c == '-' || c == '_')
    };
    let mut errors = Vec::new();
    if text.len() > 253 {
        errors.push("must be no more than 253 characters".to_owned());
    }
    if !text.split('.').all(label) {
        errors.push(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and \
             must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
             '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')"
                .to_owned(),
        );
    }
    errors
}

/// A host name that may begin with a `*.`.
pub(crate) fn wildcard_subdomain(text: &str) -> Vec<String> {
    const WORDS: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must \
                         consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character \
                         (e.g. '*.example.com', regex used for validation is \
                         '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    let rest = text.strip_prefix("*.").unwrap_or("");
    let mut errors = Vec::new();
    if text.len() > 253 {
        errors.push("must be no more than 253 characters".to_owned());
    }
    if names::check_dns1123_subdomain(rest).is_err() {
        errors.push(WORDS.to_owned());
    }
    errors
}

/// A domain of two labels or more, perhaps with a dot at the end.
pub(crate) fn fully_qualified_domain(text: &str) -> Vec<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let errors = names::dns1123_subdomain_errors(text);
    if !errors.is_empty() {
        return errors;
    }
    match text.split('.').count() {
        0 | 1 => vec!["should be a domain with at least two segments separated by dots".to_owned()],
        _ => Vec::new(),
    }
}

/// The name of a signer of certificates: a domain of two labels or more, and a path of one part.
pub(crate) fn signer(errors: &mut Errors, path: &Path, text: &str) {
    const FORM: &str = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
    const MOST: usize = 571;
    if !errors.needs(path, text, "") {
        return;
    }
    let Some((domain, name)) = text.split_once('/').filter(|(_, name)| !name.contains('/')) else {
        return errors.invalid(path, text, FORM);
    };
    if domain.len() > 253 {
        errors.too_long(path, 253);
    }
    let first_wrong = |text: &str, rule: fn(&str) -> Vec<String>| {
        let wrong = text.split('.').map(|label| (label.to_owned(), rule(label)));
        wrong.into_iter().find(|(_, why)| !why.is_empty())
    };
    if let Some((label, why)) = first_wrong(domain, names::dns1123_label_errors) {
        why.iter().for_each(|why| errors.invalid(path, domain, &format!("validating label {label:?}: {why}")));
    }
    if !domain.contains('.') {
        errors.invalid(path, domain, "should be a domain with at least two segments separated by dots");
    }
    if let Some((label, why)) = first_wrong(name, names::dns1123_subdomain_errors) {
        why.iter().for_each(|why| errors.invalid(path, name, &format!("validating label {label:?}: {why}")));
    }
    if text.len() > MOST {
        errors.too_long(path, MOST);
    }
}

/// A domain and a path: `example.com/thing`.
pub(crate) fn domain_prefixed_path(errors: &mut Errors, path: &Path, text: &str) {
    const WORDS: &str = "must be a domain-prefixed path (such as \"acme.io/foo\")";
    if !errors.needs(path, text, "") {
        return;
    }
    let Some((domain, rest)) = text.split_once('/').filter(|(domain, rest)| !domain.is_empty() && !rest.is_empty())
    else {
        return errors.invalid(path, text, WORDS);
    };
    errors.invalid_for(path, domain, names::dns1123_subdomain_errors(domain));
    let path_char = |c: char| c.is_ascii_alphanumeric() || "/%-._~!$&'()*+,;=:".contains(c);
    if !rest.chars().all(path_char) {
        errors.invalid(path, rest, "Invalid path");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qualified_names() {
        let wrong = |text: &str| qualified(text).len();
        for (text, errors) in
            [("a", 0), ("a.b/c_d", 0), ("", 2), ("/a", 1), ("a/", 2), ("a/b/c", 1), ("A_/b", 1), ("-a", 1)]
        {
            assert_eq!(wrong(text), errors, "{text}");
        }
    }

    #[test]
    fn keys_of_config_maps() {
        for (key, errors) in [("a.b-C_1", 0), ("", 1), ("a b", 1), (".", 1), ("..", 1), ("..a", 1), (".a", 0)] {
            assert_eq!(config_key(key).len(), errors, "{key}");
        }
    }
}
