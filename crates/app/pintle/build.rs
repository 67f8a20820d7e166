//! Has the linker keep one of several functions with the same code: generics of many types often come to the same.

use std::env::var;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = |part: &str| var(format!("CARGO_CFG_TARGET_{part}")).unwrap_or_default();
    // There Rust brings a linker of its own that can do it.
    let can = (target("ARCH"), target("OS"), target("ENV")) == ("x86_64".into(), "linux".into(), "gnu".into());
    if can && var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    }
}
