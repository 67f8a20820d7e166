//! What containers may do.

use crate::Test;

pub const TESTS: &[Test] = &[];
