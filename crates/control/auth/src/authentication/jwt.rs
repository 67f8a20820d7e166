//! JSON web tokens signed with ES256 (RFC 7515, RFC 7518): made and checked, nothing else understood.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use pintle_pki::{SigningKey, VerifyingKey};
use serde_json::{Value, json};

/// The key's id as upstream derives it: the SHA-256 of its DER form.
pub fn key_id(key: &VerifyingKey) -> String {
    BASE64.encode(key.fingerprint())
}

/// A token with these claims.
pub fn sign(key: &SigningKey, claims: &Value) -> Result<String, pintle_pki::Error> {
    let header = json!({"alg": "ES256", "kid": key_id(key.public())});
    let mut token = BASE64.encode(header.to_string());
    token.push('.');
    BASE64.encode_string(claims.to_string(), &mut token);
    let signature = key.sign(token.as_bytes())?;
    token.push('.');
    BASE64.encode_string(signature, &mut token);
    Ok(token)
}

/// The claims of a token that this key signed. Times and audiences are the caller's to check.
pub fn verify(key: &VerifyingKey, token: &str) -> Option<Value> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let header: Value = serde_json::from_slice(&BASE64.decode(header).ok()?).ok()?;
    // The algorithm is ours, whatever the header says: anything else is not our token.
    if header["alg"] != "ES256" || !key.verify(signed.as_bytes(), &BASE64.decode(signature).ok()?) {
        return None;
    }
    serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()
}

/// The public key as a JWK set (RFC 7517).
pub fn key_set(key: &VerifyingKey) -> Value {
    let (x, y) = key.coordinates();
    json!({"keys": [{
        "use": "sig", "kty": "EC", "kid": key_id(key), "crv": "P-256", "alg": "ES256",
        "x": BASE64.encode(x), "y": BASE64.encode(y),
    }]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_key_signed_is_believed() {
        let (key, other) = (SigningKey::ephemeral().unwrap(), SigningKey::ephemeral().unwrap());
        let token = sign(&key, &json!({"sub": "x"})).unwrap();
        assert_eq!(verify(key.public(), &token).unwrap()["sub"], "x");
        assert!(verify(other.public(), &token).is_none());
        let parts: Vec<&str> = token.split('.').collect();
        let forged = format!("{}.{}.{}", parts[0], BASE64.encode(r#"{"sub":"y"}"#), parts[2]);
        assert!(verify(key.public(), &forged).is_none());
        let none = format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), parts[1]);
        assert!(verify(key.public(), &none).is_none());
        assert!(verify(key.public(), "a.b").is_none());
    }

    #[test]
    fn broken_tokens_are_not_believed() {
        let key = SigningKey::ephemeral().unwrap();
        let token = sign(&key, &json!({"sub": "x"})).unwrap();
        pintle_noise::feed_text(&[&token], 500, |text| {
            assert!(text == token || verify(key.public(), text).is_none(), "{text:?}");
        });
    }
}
