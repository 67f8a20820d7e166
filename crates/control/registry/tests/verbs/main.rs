//! The registry's verbs over a store in memory, as the API server calls them.

mod apply;
mod consistency;
mod deletes;
mod lists;
mod pods;
mod scale;
mod services;
mod shared;
mod watches;
mod world;
mod writes;
