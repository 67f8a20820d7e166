//! Label and field selectors of queries: what is accepted prints as something that reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pintle_types::selector::{FieldSelector, LabelSelector};

fuzz_target!(|text: &str| {
    if let Ok(selector) = LabelSelector::parse(text) {
        assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
    }
    let _ = FieldSelector::parse(text);
});
