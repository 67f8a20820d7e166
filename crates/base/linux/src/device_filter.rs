//! Lets the processes of a version 2 cgroup use chosen devices only, by a small eBPF program.
//!
//! Version 2 has no device files: a program of type BPF_PROG_TYPE_CGROUP_DEVICE answers 1 (allowed) or 0. It reads
//! `struct bpf_cgroup_dev_ctx`: access and type in one word (type below, access above), major, minor (bpf(2),
//! linux/bpf.h). Each rule is a few comparisons that lead to "allowed"; what no rule allows is refused.

use crate::cgroup::DeviceRule;
use crate::process::check;
use crate::{Context, Error, Result};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const DEVICE_BLOCK: i32 = 1;
const DEVICE_CHAR: i32 = 2;

/// One eBPF instruction: code, registers (source high, destination low), jump, immediate.
fn instruction(code: u8, registers: u8, jump: i16, immediate: i32) -> u64 {
    let mut raw = [0; 8];
    raw[0] = code;
    raw[1] = registers;
    raw[2..4].copy_from_slice(&jump.to_ne_bytes());
    raw[4..8].copy_from_slice(&immediate.to_ne_bytes());
    u64::from_ne_bytes(raw)
}

const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbc;
const MOVE_IMMEDIATE: u8 = 0xb4;
const AND_IMMEDIATE: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_NOT_EQUAL: u8 = 0x56;
const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5e;
const EXIT: u8 = 0x95;

/// r2 type, r3 access, r4 major, r5 minor.
fn program(rules: &[DeviceRule]) -> Vec<u64> {
    if rules.iter().any(|rule| rule.kind == 'a') {
        // The kernel refuses programs with instructions that are never reached, as any behind this would be.
        return vec![instruction(MOVE_IMMEDIATE, 0, 0, 1), instruction(EXIT, 0, 0, 0)];
    }
    let mut code = vec![
        instruction(LOAD_WORD, 0x12, 0, 0),
        instruction(AND_IMMEDIATE, 0x02, 0, 0xffff),
        instruction(LOAD_WORD, 0x13, 0, 0),
        instruction(SHIFT_RIGHT, 0x03, 0, 16),
        instruction(LOAD_WORD, 0x14, 4, 0),
        instruction(LOAD_WORD, 0x15, 8, 0),
    ];
    for rule in rules {
        code.extend(rule_code(rule));
    }
    code.extend([instruction(MOVE_IMMEDIATE, 0, 0, 0), instruction(EXIT, 0, 0, 0)]);
    code
}

fn rule_code(rule: &DeviceRule) -> Vec<u64> {
    // Each test jumps past the rule when it does not hold; the distance is filled in at the end.
    let mut tests = Vec::new();
    let kind = if rule.kind == 'b' { DEVICE_BLOCK } else { DEVICE_CHAR };
    tests.push(instruction(JUMP_NOT_EQUAL, 0x02, 0, kind));
    let access = [('m', 1), ('r', 2), ('w', 4)];
    let allowed: i32 = access.iter().filter(|(c, _)| rule.access.contains(*c)).map(|(_, bit)| bit).sum();
    if allowed != 7 {
        tests.push(instruction(MOVE_REGISTER, 0x31, 0, 0));
        tests.push(instruction(AND_IMMEDIATE, 0x01, 0, allowed));
        tests.push(instruction(JUMP_NOT_EQUAL_REGISTER, 0x31, 0, 0));
    }
    for (register, number) in [(4, rule.major), (5, rule.minor)] {
        if let Some(number) = number {
            tests.push(instruction(JUMP_NOT_EQUAL, register, 0, number as i32));
        }
    }
    tests.extend([instruction(MOVE_IMMEDIATE, 0, 0, 1), instruction(EXIT, 0, 0, 0)]);
    let length = tests.len();
    for (position, test) in tests.iter_mut().enumerate() {
        let raw = test.to_ne_bytes();
        if matches!(raw[0], JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_REGISTER) {
            let immediate = i32::from_ne_bytes([raw[4], raw[5], raw[6], raw[7]]);
            *test = instruction(raw[0], raw[1], (length - position - 1) as i16, immediate);
        }
    }
    tests
}

#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Attaches a filter of these rules to the cgroup whose directory is open, in place of one that is there.
pub fn attach(cgroup: &impl AsFd, rules: &[DeviceRule]) -> Result<()> {
    let program = load(rules)?;
    let attributes = AttachAttributes {
        target: cgroup.as_fd().as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        flags: 0,
    };
    // SAFETY: `attributes` outlives the call and its size is told; both descriptors are open.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attributes, size_of::<AttachAttributes>()) };
    check(done).map(drop).context(|| "attach a device filter to a cgroup")
}

fn load(rules: &[DeviceRule]) -> Result<OwnedFd> {
    let code = program(rules);
    let attributes = LoadAttributes {
        kind: PROG_TYPE_CGROUP_DEVICE,
        instruction_count: code.len() as u32,
        instructions: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..LoadAttributes::default()
    };
    // SAFETY: the attributes, the code and the license they point to outlive the call; sizes are told.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size_of::<LoadAttributes>()) };
    let fd = check(fd).map_err(|e| Error::new("load a device filter", e))?;
    // SAFETY: a new descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_jump_lands_right_behind_its_rule() {
        let rule = DeviceRule::new('c', Some(1), Some(3), "rw");
        let code = rule_code(&rule);
        for (position, raw) in code.iter().enumerate().map(|(i, raw)| (i, raw.to_ne_bytes())) {
            if matches!(raw[0], JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_REGISTER) {
                let jump = i16::from_ne_bytes([raw[2], raw[3]]) as usize;
                assert_eq!(position + 1 + jump, code.len());
            }
        }
    }

    #[test]
    fn the_kernel_accepts_the_program() {
        let rules = [
            DeviceRule::new('c', None, None, "m"),
            DeviceRule::new('c', Some(1), Some(3), "rwm"),
            DeviceRule::new('b', Some(8), None, "r"),
        ];
        for rules in [&rules[..], &[DeviceRule::everything(), rules[1].clone()], &[]] {
            match load(rules) {
                Ok(_) => {}
                // A kernel without eBPF, or a sandbox that withholds CAP_BPF, is no version 2 host of ours.
                Err(e) => assert!(matches!(e.errno(), Some(libc::ENOSYS | libc::EPERM)), "{rules:?}: {e}"),
            }
        }
    }
}
