//! A role made ready for decisions: its rules, found by a fingerprint of the resource that is asked for.
//!
//! A decision goes over all roles that are bound to somebody, and most of them say nothing of the resource. A mask of 64
//! bits tells that of nearly all of those without looking at their rules.

use super::Attributes;
use super::rules::Rule;
use std::sync::Arc;

/// The bit of a mask that stands for all patterns with a wildcard.
const WILD: u64 = 1;

/// The rules of a role.
#[derive(Clone, Debug)]
pub(super) struct Role {
    pub rules: Arc<[Rule]>,
    /// The fingerprint of each resource that a rule names, and the rule's number; in order.
    named: Box<[(u32, u32)]>,
    mask: u64,
    has_paths: bool,
}

impl Role {
    pub fn new(rules: Vec<Rule>) -> Self {
        let mut named = Vec::new();
        let mut mask = 0;
        for (number, rule) in (0..).zip(&rules) {
            for pattern in &rule.resources {
                named.push((Fingerprint::default().add(pattern).short(), number));
                mask |= if pattern.starts_with('*') { WILD } else { bit(Fingerprint::default().add(pattern)) };
            }
        }
        named.sort_unstable();
        named.dedup();
        let has_paths = rules.iter().any(|rule| !rule.paths.is_empty());
        Self { rules: rules.into(), named: named.into(), mask, has_paths }
    }

    /// Whether one of the rules covers what is asked.
    pub fn covers(&self, asked: &Asked<'_>) -> bool {
        if asked.what.path.is_some() {
            return self.has_paths && self.rules.iter().any(|rule| rule.covers(asked.what));
        }
        self.mask & asked.mask != 0 && asked.patterns().any(|pattern| self.covers_by(pattern, asked.what))
    }

    /// Whether a rule that names this pattern covers it. Other patterns of the same fingerprint do no harm.
    fn covers_by(&self, pattern: u32, what: &Attributes<'_>) -> bool {
        let from = self.named.partition_point(|(known, _)| *known < pattern);
        let rules = self.named[from..].iter().take_while(|(known, _)| *known == pattern);
        rules.filter_map(|(_, number)| self.rules.get(*number as usize)).any(|rule| rule.covers(what))
    }
}

/// A question, with the patterns by which rules may answer it.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub what: &'a Attributes<'a>,
    /// The resource itself, `*`, and for a subresource `*/SUBRESOURCE`.
    patterns: [u32; 3],
    count: usize,
    mask: u64,
}

impl<'a> Asked<'a> {
    pub fn new(what: &'a Attributes<'a>) -> Self {
        let any = Fingerprint::default().add("*");
        let mut own = Fingerprint::default().add(what.resource);
        let mut patterns = [0, any.short(), 0];
        let mut count = 2;
        if !what.subresource.is_empty() {
            own = own.add("/").add(what.subresource);
            patterns[2] = any.add("/").add(what.subresource).short();
            count = 3;
        }
        patterns[0] = own.short();
        // A resource that begins like a pattern can only be met by such.
        let mask = WILD | if what.resource.starts_with('*') { 0 } else { bit(own) };
        Self { what, patterns, count, mask }
    }

    fn patterns(&self) -> impl Iterator<Item = u32> {
        self.patterns[..self.count].iter().copied()
    }
}

/// FNV-1a: the texts are short, and nothing depends on who can find two with the same fingerprint.
#[derive(Clone, Copy)]
struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    fn add(self, text: &str) -> Self {
        Self(text.bytes().fold(self.0, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
    }

    fn short(self) -> u32 {
        (self.0 ^ (self.0 >> 32)) as u32
    }
}

/// Every bit but the one of wildcards.
fn bit(fingerprint: Fingerprint) -> u64 {
    1 << (1 + fingerprint.short() % 63)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A role answers as its rules do one by one, whatever is asked.
    #[test]
    fn a_role_answers_as_its_rules_do() {
        let rules = [
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "pods/log"]}),
            json!({"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*"], "resourceNames": ["a"]}),
            json!({"verbs": ["update"], "apiGroups": ["*"], "resources": ["*/status", "a/b/c", "*x"]}),
            json!({"verbs": ["get"], "nonResourceURLs": ["/api/*"]}),
        ];
        let rules: Vec<Rule> = rules.iter().map(Rule::from_value).collect();
        for some in [&rules[..], &rules[..1], &rules[1..2], &rules[2..3], &rules[3..], &[]] {
            let role = Role::new(some.to_vec());
            for what in questions() {
                let expected = some.iter().any(|rule| rule.covers(&what));
                assert_eq!(role.covers(&Asked::new(&what)), expected, "{what:?} {some:?}");
            }
        }
    }

    fn questions() -> Vec<Attributes<'static>> {
        let mut all = Vec::new();
        for verb in ["get", "update"] {
            for group in ["", "apps"] {
                for resource in ["pods", "deployments", "a", "*", "*x", "pods/log", ""] {
                    for subresource in ["", "log", "status", "b/c"] {
                        let name = if resource == "pods" { "" } else { "a" };
                        all.push(Attributes { verb, group, resource, subresource, name, ..Attributes::default() });
                    }
                }
            }
            all.extend(["/api", "/api/v1"].map(|path| Attributes { verb, path: Some(path), ..Attributes::default() }));
        }
        all
    }
}
