//! How containers start, end and tell of it.

use crate::Test;

pub const TESTS: &[Test] = &[];
