//! Builds the guest binaries with a cargo of its own: static, small, and in a target directory of their own.

use std::path::PathBuf;
use std::process::Command;

const GUESTS: [(&str, &str); 4] =
    [("SHIM", "pintle-shim"), ("PAUSE", "pintle-pause"), ("HELLO", "pintle-hello"), ("OCI", "pintle-oci")];
const SOURCES: [&str; 6] = [
    "crates/engine/shim",
    "crates/engine/oci",
    "crates/engine/seccomp",
    "crates/base/linux",
    "crates/app/hello",
    "Cargo.toml",
];

fn main() {
    let root = PathBuf::from(env("CARGO_MANIFEST_DIR")).join("../../..");
    for watched in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    // Beside the outer target directory and not below OUT_DIR, so that every profile shares one build of the guests.
    let out = PathBuf::from(env("OUT_DIR"));
    let target_directory =
        out.ancestors().nth(4).expect("OUT_DIR lies deep in the target directory").join("guest-build");
    let target = env("TARGET");
    let status = Command::new(env("CARGO"))
        .args([
            "build",
            "--quiet",
            "--profile",
            "guest",
            "--target",
            &target,
            "-p",
            "pintle-shim",
            "-p",
            "pintle-hello",
            "-p",
            "pintle-oci",
        ])
        .arg("--bins")
        .arg("--target-dir")
        .arg(&target_directory)
        .current_dir(&root)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static")
        .status()
        .expect("cargo can be run");
    assert!(status.success(), "building the guest binaries failed");
    for (name, binary) in GUESTS {
        let path = target_directory.join(&target).join("guest").join(binary);
        println!("cargo::rustc-env=PINTLE_GUEST_{name}={}", path.display());
    }
}

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
