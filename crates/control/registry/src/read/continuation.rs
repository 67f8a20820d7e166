//! The tokens with which a client asks for the next page of a list.
//!
//! A token is unpadded URL-safe base64 of upstream's JSON. Its `start` is the key after the last one shown, relative to
//! the resource's prefix; its `rv` the revision of the list, or -1 for whatever is there when the next page is read.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pintle_store::Revision;
use pintle_types::Status;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Form {
    v: String,
    rv: i64,
    start: String,
}

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Continuation {
    /// Nothing for the newest state.
    pub revision: Option<Revision>,
    /// Relative to the resource's prefix and its slash.
    pub start: String,
}

impl Continuation {
    pub(super) fn encode(&self) -> String {
        let rv = self.revision.map_or(-1, |revision| i64::try_from(revision).unwrap_or(i64::MAX));
        let form = Form { v: "meta.k8s.io/v1".into(), rv, start: self.start.clone() };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&form).unwrap_or_default())
    }

    pub(super) fn decode(token: &str) -> Result<Self, Status> {
        let bad = |why: &str| Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|e| bad(&base64_error(&e, token)))?;
        let form: Form = serde_json::from_slice(&bytes).map_err(|e| bad(&e.to_string()))?;
        if form.v != "meta.k8s.io/v1" {
            return Err(bad(&format!("server does not recognize this encoded version {:?}", form.v)));
        }
        if form.start.is_empty() || form.start.starts_with('/') || form.start.split('/').any(|part| part == "..") {
            return Err(bad(&format!("{:?}", form.start)));
        }
        let revision = match form.rv {
            0 => return Err(bad("incorrect encoded start resourceVersion")),
            negative if negative < 0 => None,
            revision => u64::try_from(revision).ok(),
        };
        Ok(Self { revision, start: form.start })
    }
}

/// The words of Go's decoder, which tells where it stopped.
fn base64_error(error: &base64::DecodeError, token: &str) -> String {
    use base64::DecodeError::{InvalidByte, InvalidLastSymbol, InvalidLength, InvalidPadding};
    let at = match error {
        InvalidByte(at, _) => *at,
        InvalidLastSymbol(at, _) => *at,
        InvalidLength(_) | InvalidPadding => token.len() / 4 * 4,
    };
    format!("illegal base64 data at input byte {at}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went() {
        for revision in [None, Some(7)] {
            let token = Continuation { revision, start: "default/a\0".into() };
            assert_eq!(Continuation::decode(&token.encode()).unwrap(), token);
        }
    }

    #[test]
    fn bad_tokens_are_refused() {
        let message = Continuation::decode("bogus").unwrap_err().message;
        assert_eq!(message, "invalid continue token: continue key is not valid: illegal base64 data at input byte 4");
        for text in ["{}", r#"{"v":"v2","rv":1,"start":"a"}"#, r#"{"v":"meta.k8s.io/v1","rv":1,"start":"a/../b"}"#] {
            assert_eq!(Continuation::decode(&URL_SAFE_NO_PAD.encode(text)).unwrap_err().code, 400, "{text}");
        }
    }

    #[test]
    fn broken_tokens_are_bad_requests() {
        let good = Continuation { revision: Some(7), start: "default/a\0".into() }.encode();
        let check = |token: &str| match Continuation::decode(token) {
            Ok(found) => assert!(!found.start.is_empty() && !found.start.split('/').any(|part| part == "..")),
            Err(status) => assert_eq!(status.code, 400),
        };
        pintle_noise::feed_text(&[&good], 1000, check);
        pintle_noise::feed(&[&URL_SAFE_NO_PAD.decode(&good).unwrap()], 1000, |form| {
            check(&URL_SAFE_NO_PAD.encode(form))
        });
    }
}
