//! JSON of clients: what is accepted prints as something that reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pintle_schema::decode::{self, Limits};

fuzz_target!(|data: &[u8]| {
    if let Ok(decoded) = decode::json(data, Limits::default()) {
        let text = decoded.value.to_string();
        let again = decode::json(text.as_bytes(), Limits::default()).expect("what was printed is JSON");
        assert_eq!(again.value, decoded.value);
    }
});
