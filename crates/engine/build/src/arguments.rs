//! Build arguments: what was given, what is declared, and what of it is in use.

use std::collections::{BTreeMap, BTreeSet};

/// Arguments that need no declaration.
const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// The arguments of a build, as one stage sees them.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// By the client; without a value it only names one.
    given: BTreeMap<String, Option<String>>,
    /// Before the first FROM.
    global: BTreeMap<String, Option<String>>,
    /// In the stage.
    declared: BTreeMap<String, Option<String>>,
    /// Anywhere so far.
    referenced: BTreeSet<String>,
}

impl Arguments {
    pub fn new(given: BTreeMap<String, Option<String>>) -> Self {
        Self { given, ..Self::default() }
    }

    /// Those of a new stage, where nothing is declared yet.
    pub fn for_stage(&self) -> Self {
        Self { declared: BTreeMap::new(), ..self.clone() }
    }

    pub fn declare(&mut self, name: &str, value: Option<String>) {
        self.declared.insert(name.to_owned(), value);
        self.referenced.insert(name.to_owned());
    }

    pub fn declare_global(&mut self, name: &str, value: Option<String>) {
        self.declare(name, value.clone());
        self.global.insert(name.to_owned(), value);
    }

    pub fn note_referenced(&mut self, other: &Self) {
        self.referenced.extend(other.referenced.iter().cloned());
    }

    fn value(&self, name: &str, scope: &BTreeMap<String, Option<String>>) -> Option<String> {
        let default = scope.get(name);
        if let Some(Some(given)) = self.given.get(name) {
            return Some(given.clone());
        }
        match default {
            Some(Some(value)) => Some(value.clone()),
            _ => self.global.get(name).cloned().flatten(),
        }
    }

    fn all(&self, scope: &BTreeMap<String, Option<String>>) -> BTreeMap<String, String> {
        let names = scope.keys().map(String::as_str).chain(PREDEFINED);
        names.filter_map(|name| Some((name.to_owned(), self.value(name, scope)?))).collect()
    }

    /// `NAME=value` of those that FROM may use.
    pub fn global_variables(&self) -> Vec<String> {
        assignments(self.all(&self.global))
    }

    /// `NAME=value` of those that ARG before FROM may use.
    pub fn declared_variables(&self) -> Vec<String> {
        assignments(self.all(&self.declared))
    }

    /// `NAME=value` of those in use that the environment does not set, sorted by their names.
    pub fn in_use(&self, environment: &[String]) -> Vec<String> {
        let mut all = self.all(&self.declared);
        for variable in environment {
            all.remove(variable.split('=').next().unwrap_or_default());
        }
        assignments(all)
    }

    /// Whether an argument shapes the image: those that need no declaration do not, unless they have one.
    pub fn shapes(&self, assignment: &str) -> bool {
        let name = assignment.split('=').next().unwrap_or_default();
        self.declared.contains_key(name) || !PREDEFINED.contains(&name)
    }

    /// What is told of arguments that nothing asked for.
    pub fn warning(&self) -> Option<String> {
        let unused = |name: &&String| !self.referenced.contains(*name) && !PREDEFINED.contains(&name.as_str());
        let names: Vec<&str> = self.given.keys().filter(unused).map(String::as_str).collect();
        let names = names.join(" ");
        (!names.is_empty()).then(|| format!("[Warning] One or more build-args [{names}] were not consumed\n"))
    }
}

fn assignments(all: BTreeMap<String, String>) -> Vec<String> {
    all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, Option<&str>)]) -> Arguments {
        Arguments::new(pairs.iter().map(|(k, v)| ((*k).to_owned(), v.map(str::to_owned))).collect())
    }

    #[test]
    fn arguments_have_scopes() {
        let mut all = given(&[("A", Some("cli")), ("http_proxy", Some("p")), ("NOPE", Some("1"))]);
        all.declare_global("A", Some("global".into()));
        all.declare_global("G", Some("g".into()));
        assert_eq!(all.global_variables(), ["A=cli", "G=g", "http_proxy=p"]);
        let mut stage = all.for_stage();
        assert_eq!(stage.in_use(&[]), ["http_proxy=p"]);
        stage.declare("G", None);
        stage.declare("B", Some("b".into()));
        stage.declare("N", None);
        assert_eq!(stage.in_use(&["B=env".into()]), ["G=g", "http_proxy=p"]);
        assert!(!stage.shapes("http_proxy=p") && stage.shapes("G=g"));
        all.note_referenced(&stage);
        assert_eq!(all.warning().unwrap(), "[Warning] One or more build-args [NOPE] were not consumed\n");
    }
}
