//! CBOR of clients: what is accepted encodes, and decodes to the same value again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pintle_schema::cbor;
use pintle_schema::decode::Limits;

fuzz_target!(|data: &[u8]| {
    if let Ok(value) = cbor::decode(data, Limits::default()) {
        let bytes = cbor::encode(&value);
        let again = cbor::decode(&bytes, Limits::default()).expect("what was encoded decodes");
        assert_eq!(again, value);
    }
});
