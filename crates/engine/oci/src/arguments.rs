//! Reads flags as Go programs take them: `-name value`, `--name=value`, and `--name` alone for switches.

use crate::{Result, refuse};
use std::collections::BTreeMap;

/// The names of a flag, the first being the one it is asked for by, and whether a value follows.
pub struct Flag {
    pub names: &'static [&'static str],
    pub value: bool,
}

pub const fn switch(names: &'static [&'static str]) -> Flag {
    Flag { names, value: false }
}

pub const fn value(names: &'static [&'static str]) -> Flag {
    Flag { names, value: true }
}

/// Flags and what follows them.
#[derive(Debug, Default)]
pub struct Arguments {
    flags: BTreeMap<&'static str, Vec<String>>,
    pub rest: Vec<String>,
}

impl Arguments {
    /// Reads flags up to the first argument that is none. `--` ends them.
    pub fn parse(known: &'static [Flag], arguments: &[String]) -> Result<Self> {
        let mut parsed = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let Some(name) = argument.strip_prefix('-').filter(|name| !name.is_empty()) else {
                parsed.rest.push(argument.clone());
                break;
            };
            let name = name.strip_prefix('-').unwrap_or(name);
            if name.is_empty() {
                break;
            }
            let (name, given) = name.split_once('=').map_or((name, None), |(n, v)| (n, Some(v.to_owned())));
            let Some(flag) = known.iter().find(|flag| flag.names.contains(&name)) else {
                return refuse(format!("flag provided but not defined: -{name}"));
            };
            let text = match (flag.value, given) {
                (true, None) => match rest.next() {
                    Some(next) => next.clone(),
                    None => return refuse(format!("flag needs an argument: -{name}")),
                },
                (_, Some(given)) => given,
                (false, None) => "true".to_owned(),
            };
            parsed.flags.entry(flag.names[0]).or_default().push(text);
        }
        parsed.rest.extend(rest.cloned());
        Ok(parsed)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.flags.get(name)?.last().map(String::as_str)
    }

    pub fn all(&self, name: &str) -> &[String] {
        self.flags.get(name).map_or(&[], Vec::as_slice)
    }

    pub fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value != "false")
    }

    /// A number of a flag.
    pub fn number(&self, name: &str) -> Result<Option<i64>> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => refuse(format!("invalid value {text:?} for flag -{name}: give a whole number")),
        }
    }

    /// The container that the command is about.
    pub fn id(&self) -> Result<&str> {
        match self.rest.first() {
            Some(id) => Ok(id),
            None => refuse("the name of a container is missing"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static KNOWN: [Flag; 2] = [value(&["bundle", "b"]), switch(&["detach", "d"])];

    fn parse(text: &str) -> Result<Arguments> {
        Arguments::parse(&KNOWN, &text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn flags_are_read_in_all_their_forms() {
        for text in ["-b /x -d c1", "--bundle=/x --detach c1", "-bundle /x -detach=true c1", "--b /x --d -- c1"] {
            let parsed = parse(text).unwrap();
            assert_eq!((parsed.get("bundle"), parsed.is_set("detach")), (Some("/x"), true), "{text}");
            assert_eq!(parsed.rest, ["c1"], "{text}");
        }
        assert_eq!(parse("c1 ls -d").unwrap().rest, ["c1", "ls", "-d"]);
        assert!(!parse("-d=false c1").unwrap().is_set("detach"));
        for bad in ["--nope c1", "-b"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
