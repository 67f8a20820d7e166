//! Templates of pods and collections of them.

use crate::Test;

pub const TESTS: &[Test] = &[];
