//! JSON web tokens in their compact form (RFC 7515, RFC 7519): made and checked.

use super::keys::{KeyError, PublicKey, Signer};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

/// Longer tokens are nobody's.
pub const MAX_TOKEN_BYTES: usize = 32 * 1024;

/// A token with these claims.
pub fn sign(signer: &Signer, claims: &Value) -> Result<String, KeyError> {
    let header = json!({"alg": signer.public().algorithm(), "kid": signer.public().id});
    let mut token = BASE64.encode(header.to_string());
    token.push('.');
    BASE64.encode_string(claims.to_string(), &mut token);
    let signature = signer.sign(token.as_bytes())?;
    token.push('.');
    BASE64.encode_string(signature, &mut token);
    Ok(token)
}

/// A token taken apart; nothing in it is believed yet.
#[derive(Debug)]
pub struct Parsed<'a> {
    signed: &'a str,
    signature: Vec<u8>,
    header: Value,
    claims: Value,
}

impl<'a> Parsed<'a> {
    /// Nothing when the text is no signed token.
    pub fn new(token: &'a str) -> Option<Self> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let part = |text: &str| serde_json::from_slice::<Value>(&BASE64.decode(text).ok()?).ok();
        let (header, claims) = (part(header)?, part(claims)?);
        claims.is_object().then_some(Self { signed, signature: BASE64.decode(signature).ok()?, header, claims })
    }

    /// What the token says of its issuer, to choose who checks it.
    pub fn claimed_issuer(&self) -> &str {
        self.claims["iss"].as_str().unwrap_or_default()
    }

    /// How the token is said to be signed.
    pub fn algorithm(&self) -> &str {
        self.header["alg"].as_str().unwrap_or_default()
    }

    /// The id of the key that is said to have signed it; empty when it says nothing.
    pub fn key_id(&self) -> &str {
        self.header["kid"].as_str().unwrap_or_default()
    }

    /// The claims, if one of the keys signed them by one of these algorithms. A named key alone is tried; without a
    /// name, all are. Times and audiences are the caller's to check.
    pub fn verified(self, keys: &[PublicKey], algorithms: &[&str]) -> Option<Value> {
        let algorithm = self.header["alg"].as_str()?;
        // What can't be understood must not be ignored (RFC 7515, 4.1.11).
        if !algorithms.contains(&algorithm) || self.header.get("crit").is_some() {
            return None;
        }
        let id = self.key_id();
        let tried = keys.iter().filter(|key| id.is_empty() || key.id.is_empty() || key.id == id);
        let signed = |key: &PublicKey| key.verify(algorithm, self.signed.as_bytes(), &self.signature);
        tried.into_iter().any(signed).then_some(self.claims)
    }
}

/// A time claim, in seconds. Fractions are cut off.
pub fn seconds(claim: &Value) -> Option<i64> {
    claim.as_i64().or_else(|| claim.as_f64().filter(|f| f.is_finite()).map(|f| f as i64))
}

/// The audiences of a token: a text or a list of texts.
pub fn audiences(claims: &Value) -> Vec<&str> {
    match &claims["aud"] {
        Value::String(one) => vec![one],
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_pki::SigningKey;
    use std::sync::Arc;

    const OURS: &[&str] = &["ES256"];

    fn signer() -> Signer {
        Arc::new(SigningKey::ephemeral().unwrap()).into()
    }

    fn verify(key: &PublicKey, token: &str) -> Option<Value> {
        Parsed::new(token)?.verified(std::slice::from_ref(key), OURS)
    }

    #[test]
    fn only_what_the_key_signed_is_believed() {
        let (key, other) = (signer(), signer());
        let token = sign(&key, &json!({"sub": "x"})).unwrap();
        assert_eq!(verify(key.public(), &token).unwrap()["sub"], "x");
        assert!(verify(other.public(), &token).is_none());
        let both = [other.public().clone(), key.public().clone()];
        assert!(Parsed::new(&token).unwrap().verified(&both, OURS).is_some());
        assert!(Parsed::new(&token).unwrap().verified(&both, &["RS256"]).is_none());
        let parts: Vec<&str> = token.split('.').collect();
        let forged = format!("{}.{}.{}", parts[0], BASE64.encode(r#"{"sub":"y"}"#), parts[2]);
        assert!(verify(key.public(), &forged).is_none());
        let none = format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), parts[1]);
        assert!(verify(key.public(), &none).is_none());
        assert!(verify(key.public(), "a.b").is_none());
    }

    #[test]
    fn broken_tokens_are_not_believed() {
        let key = signer();
        let token = sign(&key, &json!({"sub": "x"})).unwrap();
        pintle_noise::feed_text(&[&token], 500, |text| {
            assert!(text == token || verify(key.public(), text).is_none(), "{text:?}");
        });
    }
}
