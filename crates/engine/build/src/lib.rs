//! Builds images from Dockerfiles: parsing, the cache, the steps, what is printed.
//!
//! [`Builder`] is the classic builder of Docker. Each step makes an image on top of the one before: metadata directly,
//! files in a mounted layer, commands in a container of the daemon's, confined like any other. Stages that don't need
//! each other run side by side; what they tell comes in their order. Source: Docker Engine's classic builder.
//!
//! On disk, below `DATA_DIR/build`:
//!
//! ```text
//! cache/KEY       the id of the image that a step made; the key covers all that shaped it
//! steps/ID        empty: a container that a step runs in, removed at the next start
//! tmp/            contexts and downloads; emptied at start
//! ```

mod arguments;
mod borrow;
mod build;
mod builder;
mod cache;
mod checksum;
mod context;
mod copy;
pub mod dockerfile;
mod error;
mod files;
mod ignore;
mod mounted;
mod options;
mod output;
mod paths;
mod place;
mod ports;
mod root;
mod run;
mod stage;
mod unpack;

pub use builder::{Builder, Pruned};
pub use error::{BuildError, Result};
pub use ignore::Ignore;
pub use options::{Downloaded, Options, Remote};
pub use output::{Message, Output};
