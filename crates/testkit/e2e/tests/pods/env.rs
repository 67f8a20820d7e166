//! What containers get in their environment.

use crate::Test;

pub const TESTS: &[Test] = &[];
