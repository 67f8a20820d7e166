//! The examples of the RFC, round trips, and bytes that are no documents.

use super::*;
use serde_json::json;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn read(hex: &str) -> Result<Value, CborError> {
    decode(&bytes(hex), Limits::default())
}

#[test]
fn the_examples_of_the_rfc_are_read() {
    for (hex, value) in [
        ("00", json!(0)),
        ("1818", json!(24)),
        ("1903e8", json!(1000)),
        ("1b000000e8d4a51000", json!(1_000_000_000_000_u64)),
        ("20", json!(-1)),
        ("3903e7", json!(-1000)),
        ("f90000", json!(0.0)),
        ("f93c00", json!(1.0)),
        ("f90001", json!(5.960464477539063e-8)),
        ("f9c400", json!(-4.0)),
        ("fa47c35000", json!(100_000.0)),
        ("fb3ff199999999999a", json!(1.1)),
        ("f4", json!(false)),
        ("f6", Value::Null),
        ("6449455446", json!("IETF")),
        ("4449455446", json!("IETF")),
        ("83010203", json!([1, 2, 3])),
        ("a26161016162820203", json!({"a": 1, "b": [2, 3]})),
        ("5f426162426364ff", json!("abcd")),
        ("7f657374726561646d696e67ff", json!("streaming")),
        ("9f018202039f0405ffff", json!([1, [2, 3], [4, 5]])),
        ("bf61610161629f0203ffff", json!({"a": 1, "b": [2, 3]})),
        ("d9d9f7a0", json!({})),
        ("d64401020304", json!("AQIDBA==")),
        ("d7420aff", json!("0aff")),
    ] {
        assert_eq!(read(hex), Ok(value), "{hex}");
    }
}

#[test]
fn what_is_no_document_is_refused() {
    for (hex, error) in [
        ("", CborError::Truncated),
        ("18", CborError::Truncated),
        ("9bffffffffffffffff", CborError::Truncated),
        ("5bffffffffffffffff", CborError::Truncated),
        ("0000", CborError::Trailing(1, 1)),
        ("1c", CborError::Information(28, 0)),
        ("1f", CborError::Information(31, 0)),
        ("61ff", CborError::Utf8(0)),
        ("41ff", CborError::Utf8(0)),
        ("a2616101616102", CborError::Duplicate { key: "a".into(), at: 4 }),
        ("a10102", CborError::Key(1)),
        ("c11a514b67b0", CborError::Tag { tag: 1, at: 0 }),
        ("c249010000000000000000", CborError::Tag { tag: 2, at: 0 }),
        ("d601", CborError::Tag { tag: 22, at: 0 }),
        ("1b8000000000000000", CborError::Integer(0)),
        ("3b8000000000000000", CborError::Integer(0)),
        ("f97e00", CborError::Float(0)),
        ("fa7f800000", CborError::Float(0)),
        ("f7", CborError::Simple { value: 23, at: 0 }),
        ("f820", CborError::Simple { value: 32, at: 0 }),
        ("ff", CborError::Break(0)),
        ("5f6161ff", CborError::Chunk(1)),
        ("a161615f", CborError::Truncated),
    ] {
        assert_eq!(read(hex), Err(error), "{hex}");
    }
}

#[test]
fn it_is_bounded() {
    assert_eq!(read(&"81".repeat(100_000)), Err(CborError::Depth));
    assert_eq!(read(&"d9d9f7".repeat(100_000)), Err(CborError::Depth));
    assert_eq!(read(&"9f".repeat(100_000)), Err(CborError::Depth));
    let small = Limits { max_bytes: 2, ..Limits::default() };
    assert_eq!(decode(&[0x82, 1, 2], small), Err(CborError::Size { bytes: 3, limit: 2 }));
}

#[test]
fn what_is_written_is_short_sorted_and_comes_back() {
    let value = json!({"bb": [0, 23, 24, 255, 256, 65536, 4_294_967_296_u64, i64::MAX, -1, -25, i64::MIN], "a": null,
        "aa": {"t": true, "f": false}, "c": [1.5, 1.1, 100_000.0, -0.0, 6.097555160522461e-5, 65504.0, 1e-7], "d": "ü"});
    let written = encode(&value);
    assert_eq!(decode(&written, Limits::default()).unwrap(), value);
    assert_eq!(encode(&decode(&written, Limits::default()).unwrap()), written);
    assert_eq!(encode(&json!({"bb": 1, "a": 2, "aa": -500})), bytes("d9d9f7a34161024261613901f342626201"));
    assert_eq!(encode(&json!([1.5, 1.1])), bytes("d9d9f782f93e00fb3ff199999999999a"));
}

#[test]
fn the_deepest_document_can_be_written_and_read_again() {
    let limits = Limits::default();
    let deepest = limits.max_depth.min(super::MAX_DEPTH);
    let nested = |depth: usize| [vec![0x81; depth - 1], vec![0x80]].concat();
    let value = decode(&nested(deepest), limits).unwrap();
    assert_eq!(decode(&encode(&value), limits), Ok(value));
    assert_eq!(decode(&nested(deepest + 1), limits), Err(super::CborError::Depth));
}
