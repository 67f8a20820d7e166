//! Who asks: what the credentials of a request say.

pub mod jwt;
