//! One key of one provider: how a value is closed and opened with it.
//!
//! The forms are upstream's (`k8s.io/apiserver/pkg/storage/value/encrypt`): a prefix that names provider and key, then
//! for `aescbc` a vector and padded blocks, for `aesgcm` a nonce and the sealed text bound to the key's path, for
//! `secretbox` a nonce, the tag and the text.

use super::ENCRYPTED;
use crate::StoreError;
use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use aes::{Aes128, Aes192, Aes256};
use bytes::Bytes;
use crypto_secretbox::aead::AeadInPlace;
use crypto_secretbox::{Key, KeyInit, Tag, XSalsa20Poly1305};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

const VECTOR_BYTES: usize = 16;
const GCM_NONCE_BYTES: usize = 12;
const BOX_NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// A key with its provider.
pub struct Provider {
    /// Before every value that this key wrote; empty for `identity`.
    prefix: Vec<u8>,
    cipher: Cipher,
}

enum Cipher {
    Identity,
    Cbc(Vec<u8>),
    Gcm(Box<LessSafeKey>),
    Secretbox(Box<XSalsa20Poly1305>),
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider").field("prefix", &String::from_utf8_lossy(&self.prefix)).finish_non_exhaustive()
    }
}

impl Provider {
    /// Stores values as they are.
    pub fn identity() -> Self {
        Self { prefix: Vec::new(), cipher: Cipher::Identity }
    }

    /// A key of `aescbc`, `aesgcm` or `secretbox`.
    pub fn new(kind: &str, name: &str, key: &[u8]) -> Result<Self, String> {
        let wrong = |sizes: &str| format!("the key {name:?} has {} bytes: {kind} takes {sizes}", key.len());
        let cipher = match (kind, key.len()) {
            ("aescbc", 16 | 24 | 32) => Cipher::Cbc(key.to_vec()),
            ("aescbc", _) => return Err(wrong("16, 24 or 32")),
            ("aesgcm", 16 | 32) => {
                let algorithm = if key.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
                let key = UnboundKey::new(algorithm, key).map_err(|_| wrong("16 or 32"))?;
                Cipher::Gcm(Box::new(LessSafeKey::new(key)))
            }
            ("aesgcm", _) => return Err(wrong("16 or 32; 24 is not supported")),
            ("secretbox", 32) => Cipher::Secretbox(Box::new(XSalsa20Poly1305::new(Key::from_slice(key)))),
            ("secretbox", _) => return Err(wrong("32")),
            (other, _) => return Err(format!("the provider {other:?} is not supported")),
        };
        Ok(Self { prefix: format!("k8s:enc:{kind}:v1:{name}:").into_bytes(), cipher })
    }

    /// Whether a stored value is this key's.
    pub(super) fn wrote(&self, stored: &[u8]) -> bool {
        match self.cipher {
            Cipher::Identity => !stored.starts_with(ENCRYPTED),
            _ => stored.starts_with(&self.prefix),
        }
    }

    /// The stored form of a value.
    pub(super) fn close(&self, path: &[u8], value: Bytes) -> Result<Bytes, StoreError> {
        let mut out = self.prefix.clone();
        match &self.cipher {
            Cipher::Identity => return Ok(value),
            Cipher::Cbc(key) => {
                let vector: [u8; VECTOR_BYTES] = random()?;
                out.extend(vector);
                out.extend(cbc_encrypt(key, &vector, &value));
            }
            Cipher::Gcm(key) => {
                let nonce: [u8; GCM_NONCE_BYTES] = random()?;
                let mut text = value.to_vec();
                key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(path), &mut text)
                    .map_err(|_| failed("encrypted", path))?;
                out.extend(nonce);
                out.extend(text);
            }
            Cipher::Secretbox(key) => {
                let nonce: [u8; BOX_NONCE_BYTES] = random()?;
                let mut text = value.to_vec();
                let tag = key
                    .encrypt_in_place_detached(&nonce.into(), &[], &mut text)
                    .map_err(|_| failed("encrypted", path))?;
                out.extend(nonce);
                out.extend(tag);
                out.extend(text);
            }
        }
        Ok(out.into())
    }

    /// The value in its stored form.
    pub(super) fn open(&self, path: &[u8], stored: Bytes) -> Result<Bytes, StoreError> {
        let body = &stored[self.prefix.len().min(stored.len())..];
        let opened = match &self.cipher {
            Cipher::Identity => return Ok(stored),
            Cipher::Cbc(key) => body.split_at_checked(VECTOR_BYTES).and_then(|(v, text)| cbc_decrypt(key, v, text)),
            Cipher::Gcm(key) => body.split_at_checked(GCM_NONCE_BYTES).and_then(|(nonce, text)| {
                let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
                let mut text = text.to_vec();
                let length = key.open_in_place(nonce, Aad::from(path), &mut text).ok()?.len();
                text.truncate(length);
                Some(text)
            }),
            Cipher::Secretbox(key) => body.split_at_checked(BOX_NONCE_BYTES).and_then(|(nonce, rest)| {
                let (tag, text) = rest.split_at_checked(TAG_BYTES)?;
                let nonce: [u8; BOX_NONCE_BYTES] = nonce.try_into().ok()?;
                let mut text = text.to_vec();
                key.decrypt_in_place_detached(&nonce.into(), &[], &mut text, Tag::from_slice(tag)).ok()?;
                Some(text)
            }),
        };
        opened.map(Bytes::from).ok_or_else(|| failed("decrypted", path))
    }
}

fn failed(what: &str, path: &[u8]) -> StoreError {
    let key = String::from_utf8_lossy(path);
    StoreError::Corrupt(format!("the value of {key} cannot be {what}: is the key of this name another one?"))
}

fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| StoreError::Unwritable("the system gives no random numbers".into()))?;
    Ok(bytes)
}

fn cbc_encrypt(key: &[u8], vector: &[u8], text: &[u8]) -> Vec<u8> {
    // The lengths of key and vector were checked when they were made.
    match key.len() {
        16 => cbc::Encryptor::<Aes128>::new(key.into(), vector.into()).encrypt_padded_vec_mut::<Pkcs7>(text),
        24 => cbc::Encryptor::<Aes192>::new(key.into(), vector.into()).encrypt_padded_vec_mut::<Pkcs7>(text),
        _ => cbc::Encryptor::<Aes256>::new(key.into(), vector.into()).encrypt_padded_vec_mut::<Pkcs7>(text),
    }
}

fn cbc_decrypt(key: &[u8], vector: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    match key.len() {
        16 => cbc::Decryptor::<Aes128>::new(key.into(), vector.into()).decrypt_padded_vec_mut::<Pkcs7>(text).ok(),
        24 => cbc::Decryptor::<Aes192>::new(key.into(), vector.into()).decrypt_padded_vec_mut::<Pkcs7>(text).ok(),
        _ => cbc::Decryptor::<Aes256>::new(key.into(), vector.into()).decrypt_padded_vec_mut::<Pkcs7>(text).ok(),
    }
}
