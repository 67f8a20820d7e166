//! Many clusters, each with its seed: none breaks an invariant, and a seed replays the same way.
//!
//! `PINTLE_SIM_SEEDS` says how many; without it a few.

use std::process::{Command, Output};

const FEW: u64 = 24;
/// Seconds of virtual time in which things go wrong: less than a second of a processor in a debug build.
const TROUBLE: &str = "80";

fn simulate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pintle-sim")).args(arguments).output().expect("the simulator starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn no_seed_breaks_an_invariant() {
    let count = match std::env::var("PINTLE_SIM_SEEDS") {
        Ok(text) => text.parse().expect("PINTLE_SIM_SEEDS is a number"),
        Err(_) => FEW,
    };
    let output = simulate(&["--count", &count.to_string(), "--trouble", TROUBLE]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_seed_replays_the_same_way() {
    let [first, second] = [simulate(&["--seed", "7"]), simulate(&["--seed", "7"])];
    assert_eq!(said(&first), said(&second));
    assert_ne!(said(&first), said(&simulate(&["--seed", "8"])));
}
