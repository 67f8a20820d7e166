//! Compiles a profile to classic BPF, as seccomp(2) runs it before every system call.
//!
//! For each architecture the numbers of calls with the same fate are ranges, and a tree of comparisons finds the
//! range: about nine steps instead of hundreds. Calls with conditions have a block of their own, where the rules are
//! tried in order. Every conditional jump goes to the next instruction or over it, and long ways are unconditional
//! jumps, whose distance has 32 bits.

use crate::profile::{Action, Compare, Condition, Profile, Rule};
use std::collections::{BTreeMap, HashMap};

const NAMES: &str = include_str!("syscalls.txt");
const MAX_INSTRUCTIONS: usize = 4096;

/// A `sock_filter` of linux/filter.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    value: u32,
}

impl Instruction {
    pub fn bytes(self) -> [u8; 8] {
        let mut raw = [0; 8];
        raw[..2].copy_from_slice(&self.code.to_ne_bytes());
        (raw[2], raw[3]) = (self.jump_true, self.jump_false);
        raw[4..].copy_from_slice(&self.value.to_ne_bytes());
        raw
    }
}

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The architectures whose programs this kernel runs: AUDIT_ARCH_*, the column of the table of names, and whether
/// numbers from 2^30 on are another ABI (x32), which gets nothing but the default.
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: [(u32, usize); 1] = [(0xc000_00b7, 3)];
#[cfg(not(target_arch = "aarch64"))]
const ARCHITECTURES: [(u32, usize); 2] = [(0xc000_003e, 1), (0x4000_0003, 2)];

/// Compiles a profile. Names that an architecture does not have are passed over there.
///
/// # Errors
/// A profile that forbids by name names what does not exist, so it would be weaker than it looks; or it is too long.
pub fn program(profile: &Profile) -> Result<Vec<Instruction>, String> {
    let table: HashMap<&str, [Option<u32>; 3]> = table();
    let unknown = |name: &&String| !table.contains_key(name.as_str());
    // One that is newer than the table is refused by the default already, unless the default lets all through.
    if profile.default == Action::Allow
        && let Some(name) = profile.rules.iter().flat_map(|rule| &rule.names).find(unknown)
    {
        return Err(format!("unknown system call {name:?}"));
    }
    let mut code = Code::default();
    code.push(LOAD, ARCHITECTURE);
    for (architecture, column) in ARCHITECTURES {
        let mut block = Code::default();
        emit_architecture(&mut block, profile, |name| table.get(name)?[column - 1]);
        code.skip_if(JUMP_EQUAL, architecture);
        code.push(JUMP, block.len());
        code.append(block);
    }
    code.push(RETURN, Action::KillProcess.value());
    if code.0.len() > MAX_INSTRUCTIONS {
        return Err(format!("the profile needs {} instructions; the kernel takes {MAX_INSTRUCTIONS}", code.0.len()));
    }
    Ok(code.0)
}

fn table() -> HashMap<&'static str, [Option<u32>; 3]> {
    let lines = NAMES.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let name = fields.next()?;
            let mut number = || fields.next().and_then(|text| text.parse().ok());
            Some((name, [number(), number(), number()]))
        })
        .collect()
}

#[derive(Default)]
struct Code(Vec<Instruction>);

impl Code {
    fn push(&mut self, code: u16, value: u32) {
        self.0.push(Instruction { code, jump_true: 0, jump_false: 0, value });
    }

    /// Goes over the next instruction when the test holds.
    fn skip_if(&mut self, code: u16, value: u32) {
        self.0.push(Instruction { code, jump_true: 1, jump_false: 0, value });
    }

    /// Goes over the next instruction when the test does not hold.
    fn skip_unless(&mut self, code: u16, value: u32) {
        self.0.push(Instruction { code, jump_true: 0, jump_false: 1, value });
    }

    fn append(&mut self, mut other: Code) {
        self.0.append(&mut other.0);
    }

    fn len(&self) -> u32 {
        self.0.len() as u32
    }
}

/// What becomes of one call.
#[derive(Clone, PartialEq, Eq)]
enum Fate<'a> {
    Decided(Action),
    /// Rules to try, the first that holds counts.
    Tried(Vec<&'a Rule>),
}

fn emit_architecture(code: &mut Code, profile: &Profile, number: impl Fn(&str) -> Option<u32>) {
    let mut rules: BTreeMap<u32, Vec<&Rule>> = BTreeMap::new();
    for rule in &profile.rules {
        for number in rule.names.iter().filter_map(|name| number(name)) {
            rules.entry(number).or_default().push(rule);
        }
    }
    let mut ranges: Vec<(u32, Fate<'_>)> = Vec::new();
    let mut add = |start, fate| {
        // Neighbours of the same fate are one range.
        if ranges.last().is_none_or(|(_, last)| *last != fate) {
            ranges.push((start, fate));
        }
    };
    let mut next = 0;
    for (number, rules) in rules {
        if number > next {
            add(next, Fate::Decided(profile.default));
        }
        add(number, fate(rules));
        next = number + 1;
    }
    add(next, Fate::Decided(profile.default));
    code.push(LOAD, NUMBER);
    emit_tree(code, &ranges, profile.default);
}

/// The first rule without conditions decides what the ones behind it would.
fn fate(rules: Vec<&Rule>) -> Fate<'_> {
    match rules.iter().position(|rule| rule.conditions.is_empty()) {
        Some(0) => Fate::Decided(rules[0].action),
        Some(last) => Fate::Tried(rules[..=last].to_vec()),
        None => Fate::Tried(rules),
    }
}

/// A binary search: the number of the call is loaded when it begins.
fn emit_tree(code: &mut Code, ranges: &[(u32, Fate<'_>)], default: Action) {
    match ranges {
        [] => code.push(RETURN, default.value()),
        [(_, Fate::Decided(action))] => code.push(RETURN, action.value()),
        [(_, Fate::Tried(rules))] => {
            for rule in rules {
                emit_rule(code, rule);
            }
            code.push(RETURN, default.value());
        }
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let mut below = Code::default();
            emit_tree(&mut below, low, default);
            code.skip_unless(JUMP_GREATER_EQUAL, high[0].0);
            code.push(JUMP, below.len());
            code.append(below);
            emit_tree(code, high, default);
        }
    }
}

/// Returns the rule's action, or goes on behind it when a condition does not hold.
fn emit_rule(code: &mut Code, rule: &Rule) {
    let mut body = Code::default();
    body.push(RETURN, rule.action.value());
    // From the last condition to the first, so that each knows how far the way out is.
    for condition in rule.conditions.iter().rev() {
        let mut with = Code::default();
        emit_condition(&mut with, condition, body.len());
        with.append(body);
        body = with;
    }
    code.append(body);
}

/// Goes on to the next instruction when the condition holds, else `out` instructions beyond the end of its own. An
/// argument has 64 bits and is compared in halves.
fn emit_condition(code: &mut Code, condition: &Condition, out: u32) {
    let at = ARGUMENTS + 8 * u32::from(condition.argument);
    let (low_at, high_at) = if cfg!(target_endian = "big") { (at + 4, at) } else { (at, at + 4) };
    let (high, low) = ((condition.value >> 32) as u32, condition.value as u32);
    match condition.compare {
        Compare::Equal => emit_equal(code, (low_at, high_at), u64::MAX, condition.value, out),
        Compare::Masked(mask) => emit_equal(code, (low_at, high_at), mask, condition.value, out),
        Compare::NotEqual => {
            code.push(LOAD, high_at);
            // Different halves: it holds, whatever the other ones are.
            code.skip_if(JUMP_EQUAL, high);
            code.push(JUMP, 3);
            code.push(LOAD, low_at);
            code.skip_unless(JUMP_EQUAL, low);
            code.push(JUMP, out);
        }
        Compare::Greater | Compare::GreaterOrEqual => {
            let test = if condition.compare == Compare::Greater { JUMP_GREATER } else { JUMP_GREATER_EQUAL };
            code.push(LOAD, high_at);
            code.skip_unless(JUMP_GREATER, high);
            code.push(JUMP, 5);
            code.skip_if(JUMP_EQUAL, high);
            code.push(JUMP, out + 3);
            code.push(LOAD, low_at);
            code.skip_if(test, low);
            code.push(JUMP, out);
        }
        Compare::Less | Compare::LessOrEqual => {
            let test = if condition.compare == Compare::Less { JUMP_GREATER_EQUAL } else { JUMP_GREATER };
            code.push(LOAD, high_at);
            code.skip_unless(JUMP_GREATER, high);
            code.push(JUMP, out + 5);
            code.skip_if(JUMP_EQUAL, high);
            code.push(JUMP, 3);
            code.push(LOAD, low_at);
            code.skip_unless(test, low);
            code.push(JUMP, out);
        }
    }
}

fn emit_equal(code: &mut Code, (low_at, high_at): (u32, u32), mask: u64, value: u64, out: u32) {
    code.push(LOAD, high_at);
    code.push(AND, (mask >> 32) as u32);
    code.skip_if(JUMP_EQUAL, (value >> 32) as u32);
    code.push(JUMP, out + 4);
    code.push(LOAD, low_at);
    code.push(AND, mask as u32);
    code.skip_if(JUMP_EQUAL, value as u32);
    code.push(JUMP, out);
}

#[cfg(test)]
mod tests;
