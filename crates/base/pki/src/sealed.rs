//! Secrets for one who knows a key: AES-256 in Galois/counter mode (NIST SP 800-38D), a random nonce before the rest.

use crate::Error;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

/// Bytes of a key.
pub const SEALING_KEY_BYTES: usize = 32;

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::Signing)?;
    Ok(bytes)
}

/// A new key. One key must not seal more than a few billion texts: nonces are random.
pub fn sealing_key() -> Result<[u8; SEALING_KEY_BYTES], Error> {
    random()
}

fn key(bytes: &[u8; SEALING_KEY_BYTES]) -> Result<LessSafeKey, Error> {
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).map_err(|_| Error::Signing)?))
}

/// The text as only who has the key can read it.
pub fn seal(with: &[u8; SEALING_KEY_BYTES], text: &[u8]) -> Result<Vec<u8>, Error> {
    let nonce: [u8; NONCE_LEN] = random()?;
    let mut sealed = text.to_vec();
    key(with)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed)
        .map_err(|_| Error::Signing)?;
    Ok([&nonce[..], &sealed].concat())
}

/// The text that was sealed.
///
/// # Errors
/// When it was sealed with another key, or changed since.
pub fn unseal(with: &[u8; SEALING_KEY_BYTES], sealed: &[u8]) -> Result<Vec<u8>, Error> {
    let wrong = || Error::malformed("the sealed text", "it was sealed with another key, or changed since");
    let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(wrong)?;
    let mut text = text.to_vec();
    let opened = key(with)?.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::empty(), &mut text);
    opened.map(|text| text.to_vec()).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_opens() {
        let (one, other) = (sealing_key().unwrap(), sealing_key().unwrap());
        let sealed = seal(&one, b"secret").unwrap();
        assert_eq!(unseal(&one, &sealed).unwrap(), b"secret");
        assert_ne!(seal(&one, b"secret").unwrap(), sealed);
        assert!(unseal(&other, &sealed).is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(unseal(&one, &changed).is_err() && unseal(&one, &sealed[..at]).is_err(), "{at}");
        }
    }
}
