//! Hashes of templates, for names and labels.

/// A 32-bit FNV-1a hash in letters that make no words, such as `7d4b9c8f5d`. Collisions counted so far are a salt.
pub fn safe_hash(encoded: &[u8], collisions: Option<i32>) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let fnv = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let salt = collisions.map(i32::to_le_bytes);
    let hash = encoded.iter().chain(salt.iter().flatten()).fold(0x811c_9dc5_u32, fnv);
    let letter = |digit: u8| char::from(LETTERS[usize::from(digit) % LETTERS.len()]);
    hash.to_string().bytes().map(letter).collect()
}
