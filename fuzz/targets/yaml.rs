//! YAML of clients: what is accepted is JSON too, and no larger than the bounds allow.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pintle_schema::decode::{self, Limits};

fuzz_target!(|data: &[u8]| {
    if let Ok(decoded) = decode::yaml(data, Limits::default()) {
        let text = decoded.value.to_string();
        assert!(decode::json(text.as_bytes(), Limits { max_bytes: usize::MAX, ..Limits::default() }).is_ok());
    }
});
