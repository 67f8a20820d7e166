//! ADD and COPY: finds what is to be copied, sums it for the cache, and copies it into a root.

mod owner;
mod sources;
mod write;

pub(crate) use owner::owner;
pub(crate) use sources::{Item, Origin, SumCache, find};
pub(crate) use write::{Rules, write, write_text};

#[cfg(test)]
mod tests;
