//! How containers are asked whether they live and are ready.

use crate::Test;

pub const TESTS: &[Test] = &[];
