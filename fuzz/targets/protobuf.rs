//! Protobuf of clients: what is accepted encodes to what encodes the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pintle_schema::decode::Limits;
use pintle_schema::protobuf::{Envelope, encode, envelope};

/// Kinds by which messages of every shape are reached.
const KINDS: [(&str, &str); 8] = [
    ("v1", "Pod"),
    ("apps/v1", "Deployment"),
    ("v1", "Secret"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ("v1", "Event"),
    ("v1", "DeleteOptions"),
    ("discovery.k8s.io/v1", "EndpointSlice"),
];

fuzz_target!(|data: &[u8]| {
    // As it is, and as the message of a kind that the first byte chooses.
    let _ = Envelope::open(data).map(|e| e.object(KINDS[0], Limits::default()).is_ok());
    let Some((first, rest)) = data.split_first() else { return };
    let (version, kind) = KINDS[usize::from(*first) % KINDS.len()];
    let bytes = envelope(version, kind, rest);
    let Ok(object) = Envelope::open(&bytes).and_then(|e| e.object(KINDS[0], Limits::default())) else { return };
    let Some(encoded) = encode(&object) else { return };
    let again = Envelope::open(&encoded).and_then(|e| e.object(KINDS[0], Limits::default()));
    // Fields that are always written may be new in it.
    assert_eq!(encode(&again.expect("what was encoded decodes")), Some(encoded));
});
