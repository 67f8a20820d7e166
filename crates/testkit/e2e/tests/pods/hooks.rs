//! What is done after the start and before the end of containers.

use crate::Test;

pub const TESTS: &[Test] = &[];
