//! Compiles seccomp profiles to the programs that the kernel runs; has the default profile.
//!
//! A program goes to the start path of a container as digits: sixteen for each instruction, in memory order.

mod compile;
pub mod default;
pub mod oci;
pub mod profile;

/// Compiles a profile to digits.
///
/// # Errors
/// A profile that is weaker than it looks, or longer than what the kernel takes.
pub fn program(profile: &profile::Profile) -> Result<String, String> {
    let program = compile::program(profile)?;
    Ok(program.iter().map(|instruction| hex::encode(instruction.bytes())).collect())
}
