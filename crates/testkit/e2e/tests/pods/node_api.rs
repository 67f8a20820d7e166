//! Nodes, leases and what pods tell of themselves by the API.

use crate::Test;

pub const TESTS: &[Test] = &[];
