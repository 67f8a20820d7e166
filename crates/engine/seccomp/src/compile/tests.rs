//! Runs compiled programs in an interpreter of the few instructions that they use, and compares with the rules.

use super::*;
use crate::default;
use pintle_linux::capability::Capabilities;

const X86_64: u32 = 0xc000_003e;

/// What the kernel would do with a call.
fn run(program: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend_from_slice(&number.to_ne_bytes());
    data.extend_from_slice(&architecture.to_ne_bytes());
    data.extend_from_slice(&[0; 8]);
    arguments.iter().for_each(|a| data.extend_from_slice(&a.to_ne_bytes()));
    let (mut at, mut register) = (0, 0_u32);
    loop {
        let i = program[at];
        at += 1;
        let holds = match i.code {
            LOAD => {
                let from = i.value as usize;
                register = u32::from_ne_bytes(data[from..from + 4].try_into().unwrap());
                continue;
            }
            AND => {
                register &= i.value;
                continue;
            }
            JUMP => {
                at += i.value as usize;
                continue;
            }
            RETURN => return i.value,
            JUMP_EQUAL => register == i.value,
            JUMP_GREATER => register > i.value,
            JUMP_GREATER_EQUAL => register >= i.value,
            other => panic!("instruction {other:#x}"),
        };
        at += usize::from(if holds { i.jump_true } else { i.jump_false });
    }
}

fn number(name: &str) -> u32 {
    table()[name][0].unwrap()
}

fn check(program: &[Instruction], name: &str, first: u64, expected: Action) {
    let got = run(program, X86_64, number(name), [first, 0, 0, 0, 0, 0]);
    assert_eq!(got, expected.value(), "{name}({first:#x})");
}

#[test]
fn the_default_profile_allows_the_common_and_refuses_the_dangerous() {
    let code = program(&default::profile(Capabilities::NONE)).unwrap();
    let refused = Action::Errno(1);
    check(&code, "read", 0, Action::Allow);
    check(&code, "execve", 0, Action::Allow);
    for name in ["mount", "unshare", "reboot", "bpf", "keyctl", "add_key", "kexec_load", "open_by_handle_at", "swapon"]
    {
        check(&code, name, 0, refused);
    }
    check(&code, "socket", 2, Action::Allow);
    check(&code, "socket", 16, Action::Allow);
    check(&code, "socket", 40, refused);
    check(&code, "socket", 1 << 32, refused);
    check(&code, "personality", 0xffff_ffff, Action::Allow);
    check(&code, "personality", 4, refused);
    check(&code, "clone", 0x11, Action::Allow);
    check(&code, "clone", 0x1000_0000, refused);
    check(&code, "clone3", 0, Action::Errno(38));
    assert_eq!(run(&code, X86_64, 5000, [0; 6]), refused.value());
    assert_eq!(run(&code, X86_64, 0x4000_0000, [0; 6]), refused.value());
    assert_eq!(run(&code, 0x1234, 0, [0; 6]), Action::KillProcess.value());
    assert!(code.len() < 2000, "{}", code.len());
}

#[test]
fn capabilities_open_their_calls() {
    let admin = Capabilities::parse(["SYS_ADMIN"]).unwrap();
    let code = program(&default::profile(admin)).unwrap();
    for name in ["mount", "unshare", "clone3", "setns"] {
        check(&code, name, 0, Action::Allow);
    }
    check(&code, "clone", 0x1000_0000, Action::Allow);
    check(&code, "reboot", 0, Action::Errno(1));
}

#[test]
fn comparisons_hold_for_both_halves_of_an_argument() {
    let value = (5 << 32) | 7;
    let near = [0, 7, 5 << 32, value - 1, value, value + 1, (4 << 32) | 9, (6 << 32) | 1, u64::MAX];
    let cases: [(Compare, fn(u64, u64) -> bool); 7] = [
        (Compare::Equal, |a, b| a == b),
        (Compare::NotEqual, |a, b| a != b),
        (Compare::Less, |a, b| a < b),
        (Compare::LessOrEqual, |a, b| a <= b),
        (Compare::Greater, |a, b| a > b),
        (Compare::GreaterOrEqual, |a, b| a >= b),
        (Compare::Masked(0xff), |a, b| a & 0xff == b),
    ];
    for (compare, holds) in cases {
        let condition = Condition { argument: 1, compare, value };
        let second = Condition { argument: 0, compare: Compare::Equal, value: 3 };
        let rule = Rule { names: vec!["read".into()], conditions: vec![condition, second], action: Action::Errno(9) };
        let code = program(&Profile { default: Action::Allow, rules: vec![rule] }).unwrap();
        for argument in near {
            let expected = if holds(argument, value) { Action::Errno(9) } else { Action::Allow };
            let got = run(&code, X86_64, number("read"), [3, argument, 0, 0, 0, 0]);
            assert_eq!(got, expected.value(), "{compare:?} {argument:#x}");
            assert_eq!(run(&code, X86_64, number("read"), [4, argument, 0, 0, 0, 0]), Action::Allow.value());
        }
    }
}

#[test]
fn a_profile_that_forbids_what_does_not_exist_is_an_error() {
    let rule = Rule { names: vec!["chmodd".into()], conditions: Vec::new(), action: Action::Errno(1) };
    assert!(program(&Profile { default: Action::Allow, rules: vec![rule] }).unwrap_err().contains("chmodd"));
}
