//! Makes the ids of sandboxes and containers.

use rand::RngCore;

/// 64 hexadecimal digits, as Docker's.
pub fn new_id() -> String {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    hex::encode(bytes)
}

/// Whether a name found in a directory can be an id of ours.
pub fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}
