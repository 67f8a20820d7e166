//! The default profile: that of Docker and containerd, from data.

use crate::profile::{Action, Compare, Condition, Profile, Rule};
use pintle_linux::capability::Capabilities;

const CALLS: &str = include_str!("default.txt");
const EPERM: u16 = 1;
const ENOSYS: u16 = 38;
/// All CLONE_NEW* flags that clone(2) takes.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// Address families from 12 on that may be used; those below may all. Left out are AF_VSOCK and others that few need
/// and that had faults.
const FAMILIES: [u64; 25] =
    [13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44, 45];
/// Values of personality(2): Linux, uname26 and their kinds, and "what is it".
const PERSONALITIES: [u64; 5] = [0, 8, 0x20000, 0x20008, 0xffff_ffff];

/// The profile of a container with these capabilities.
pub fn profile(capabilities: Capabilities) -> Profile {
    let mut allowed = Vec::new();
    for line in CALLS.lines().filter(|line| !line.starts_with('#')) {
        match line.split_once(' ') {
            Some((capability, names)) if capability.starts_with("CAP_") => {
                if capabilities.has(capability) {
                    allowed.extend(names.split(' ').map(str::to_owned));
                }
            }
            _ => allowed.extend(line.split(' ').map(str::to_owned)),
        }
    }
    let mut rules = vec![Rule { names: allowed, conditions: Vec::new(), action: Action::Allow }];
    rules.push(when("socket", Compare::Less, 12));
    rules.extend(FAMILIES.iter().map(|family| when("socket", Compare::Equal, *family)));
    rules.extend(PERSONALITIES.iter().map(|value| when("personality", Compare::Equal, *value)));
    if !capabilities.has("SYS_ADMIN") {
        rules.push(when("clone", Compare::Masked(NEW_NAMESPACES), 0));
        // Its flags are in memory, where a filter cannot look: programs fall back to clone.
        let names = vec!["clone3".to_owned()];
        rules.push(Rule { names, conditions: Vec::new(), action: Action::Errno(ENOSYS) });
    }
    Profile { default: Action::Errno(EPERM), rules }
}

/// Allows a call when its first argument is so.
fn when(name: &str, compare: Compare, value: u64) -> Rule {
    let conditions = vec![Condition { argument: 0, compare, value }];
    Rule { names: vec![name.to_owned()], conditions, action: Action::Allow }
}
