//! Reads Dockerfiles: lines, words, instructions, and how their variables expand.
//!
//! Source: Dockerfile reference; the messages are those of Docker.

mod expand;
mod instruction;
mod lines;
mod parse;
mod words;

pub use expand::{Lex, Variables};
pub use instruction::{CommandLine, Copying, HealthCheck, Inline, Instruction, Stage, Step};
pub use parse::{parse, parse_command};

/// The most bytes that a Dockerfile may have.
pub const MAX_BYTES: usize = 1 << 20;
/// The most instructions that a Dockerfile may have.
pub const MAX_INSTRUCTIONS: usize = 10_000;
/// The most stages that a Dockerfile may have.
pub const MAX_STAGES: usize = 500;

/// A Dockerfile that was read.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    /// `ARG` before the first `FROM`, with the texts of their steps.
    pub arguments: Vec<Step>,
    pub stages: Vec<Stage>,
    /// Takes the meaning from the next character, and continues lines.
    pub escape: char,
    /// To be shown on standard error, a line each.
    pub warnings: Vec<String>,
}

#[cfg(test)]
mod tests;
