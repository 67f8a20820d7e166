//! Reads profiles in the JSON of Docker and the OCI runtime specification ("Seccomp").

use crate::profile::{Action, Compare, Condition, Profile, Rule};
use pintle_linux::capability::Capabilities;
use serde::Deserialize;
use std::io::Read;
use std::path::Path;

/// A profile file is at most so long, in bytes.
const MAX_FILE: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    syscalls: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    names: Vec<String>,
    /// The older form of a single name.
    name: Option<String>,
    action: String,
    errno_ret: Option<u16>,
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Filter,
    #[serde(default)]
    excludes: Filter,
}

/// Docker's conditions on the container and the machine.
#[derive(Default, Deserialize)]
struct Filter {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// Reads a profile file. Errors are sentences for the pod's event.
pub fn read(path: &Path, capabilities: Capabilities) -> Result<Profile, String> {
    let failed = |e: &dyn std::fmt::Display| format!("cannot load seccomp profile {:?}: {e}", path.display());
    let file = std::fs::File::open(path).map_err(|e| failed(&e))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| failed(&e))?;
    parse(&bytes, capabilities).map_err(|e| failed(&e))
}

/// The same of its text.
pub fn parse(bytes: &[u8], capabilities: Capabilities) -> Result<Profile, String> {
    if bytes.len() as u64 > MAX_FILE {
        return Err("it is longer than 1 MiB".to_owned());
    }
    let file: File = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let default = action(&file.default_action, file.default_errno_ret)?;
    let wanted = |entry: &&Entry| entry.includes.all(capabilities) && !entry.excludes.any(capabilities);
    let rules = file.syscalls.iter().filter(wanted).map(rule).collect::<Result<_, _>>()?;
    Ok(Profile { default, rules })
}

/// Docker's name of this machine's architecture.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

impl Filter {
    fn all(&self, capabilities: Capabilities) -> bool {
        self.caps.iter().all(|name| capabilities.has(name))
            && (self.arches.is_empty() || self.arches.iter().any(|a| a == ARCHITECTURE))
    }

    fn any(&self, capabilities: Capabilities) -> bool {
        self.caps.iter().any(|name| capabilities.has(name)) || self.arches.iter().any(|a| a == ARCHITECTURE)
    }
}

fn rule(entry: &Entry) -> Result<Rule, String> {
    let conditions = entry.args.iter().flatten().map(condition).collect::<Result<_, _>>()?;
    let names: Vec<String> = entry.names.iter().chain(&entry.name).cloned().collect();
    if names.is_empty() {
        return Err("a rule names no system call".to_owned());
    }
    Ok(Rule { names, conditions, action: action(&entry.action, entry.errno_ret)? })
}

fn condition(argument: &Argument) -> Result<Condition, String> {
    if argument.index > 5 {
        return Err(format!("argument {} of a system call: there are six", argument.index));
    }
    let (compare, value) = match argument.op.as_str() {
        "SCMP_CMP_EQ" => (Compare::Equal, argument.value),
        "SCMP_CMP_NE" => (Compare::NotEqual, argument.value),
        "SCMP_CMP_LT" => (Compare::Less, argument.value),
        "SCMP_CMP_LE" => (Compare::LessOrEqual, argument.value),
        "SCMP_CMP_GT" => (Compare::Greater, argument.value),
        "SCMP_CMP_GE" => (Compare::GreaterOrEqual, argument.value),
        "SCMP_CMP_MASKED_EQ" => (Compare::Masked(argument.value), argument.value_two),
        other => return Err(format!("unknown comparison {other:?}")),
    };
    Ok(Condition { argument: argument.index, compare, value })
}

fn action(name: &str, errno: Option<u16>) -> Result<Action, String> {
    match name {
        "SCMP_ACT_ALLOW" => Ok(Action::Allow),
        "SCMP_ACT_LOG" => Ok(Action::Log),
        "SCMP_ACT_ERRNO" => Ok(Action::Errno(errno.unwrap_or(1))),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Ok(Action::KillThread),
        "SCMP_ACT_KILL_PROCESS" => Ok(Action::KillProcess),
        "SCMP_ACT_TRAP" => Ok(Action::Trap),
        other => Err(format!("action {other:?} is not supported")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_read_and_wrong_ones_told() {
        let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5},
            {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}}]}"#;
        let profile = parse(text.as_bytes(), Capabilities::ALL).unwrap();
        assert_eq!((profile.default, profile.rules.len()), (Action::Allow, 1));
        assert_eq!(profile.rules[0].action, Action::Errno(5));
        assert_eq!(parse(text.as_bytes(), Capabilities::NONE).unwrap().rules.len(), 2);
        for bad in ["", "{}", r#"{"defaultAction": "SCMP_ACT_FLY"}"#] {
            assert!(parse(bad.as_bytes(), Capabilities::NONE).is_err(), "{bad}");
        }
    }
}
