//! Tokens that say what their bearer is, signed with a key of the node (JSON web tokens, HS256). Pure: the time is given.
//! Source: security.md §3.2, §5; RFC 7515, 7519.
//!
//! ```text
//!   base64url({"alg":"HS256","typ":"JWT"}) . base64url({claims}) . base64url(HMAC-SHA256 of what is before the dot)
//! ```

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Map, Value};

/// The key that tokens are signed with and known by. Whoever has it can make any.
#[derive(Clone)]
pub struct TokenKey(hmac::Key);

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey")
    }
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not three parts.
    #[error("it has not three parts with dots between")]
    Parts,
    /// A part that is no base64url without padding, or no JSON object.
    #[error("its {0} cannot be read")]
    Unreadable(&'static str),
    /// Another way of signing.
    #[error("it is not signed with HS256")]
    Algorithm,
    /// Something in the header that has to be understood.
    #[error("it has critical extensions, which are not supported")]
    Critical,
    /// The signature is of something else, or made with another key.
    #[error("its signature is not valid")]
    Signature,
    /// `exp` is no number.
    #[error("its 'exp' is no number")]
    Expiry,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// It says nothing of its bearer.
    #[error("it has no claims")]
    NoClaims,
}

impl TokenKey {
    /// A key of these bytes.
    pub fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// A token with these claims, which does not expire.
    pub fn sign(&self, claims: &BTreeMap<String, String>) -> String {
        let claims = Value::from_iter(claims.iter().map(|(name, value)| (&**name, &**value)));
        let header = BASE64.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let signed = format!("{header}.{}", BASE64.encode(claims.to_string()));
        let signature = hmac::sign(&self.0, signed.as_bytes());
        format!("{signed}.{}", BASE64.encode(signature))
    }

    /// What a token says, if it was signed with this key and is not over at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn open(&self, token: &str, now: u64) -> Result<BTreeMap<String, String>, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Parts)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Parts)?;
        if claims.contains('.') {
            return Err(TokenError::Parts);
        }
        let header = object("header", header)?;
        if header.get("alg").and_then(Value::as_str) != Some("HS256") {
            return Err(TokenError::Algorithm);
        }
        if header.contains_key("crit") {
            return Err(TokenError::Critical);
        }
        if header.get("typ").is_some_and(|kind| !kind.is_string()) {
            return Err(TokenError::Unreadable("header"));
        }
        let signature = BASE64
            .decode(signature)
            .map_err(|_| TokenError::Unreadable("signature"))?;
        // In constant time.
        hmac::verify(&self.0, signed.as_bytes(), &signature).map_err(|_| TokenError::Signature)?;
        let claims = object("payload", claims)?;
        if let Some(end) = claims.get("exp") {
            // Seconds far below 2^53.
            #[expect(clippy::cast_precision_loss, reason = "a date")]
            let is_over = end.as_f64().ok_or(TokenError::Expiry)? < now as f64;
            if is_over {
                return Err(TokenError::Expired);
            }
        }
        if claims.is_empty() {
            return Err(TokenError::NoClaims);
        }
        let text = |value: Value| match value {
            Value::String(text) => text,
            other @ (Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_)) => other.to_string(),
        };
        let claims = claims.into_iter();
        Ok(claims.map(|(name, value)| (name, text(value))).collect())
    }
}

fn object(what: &'static str, part: &str) -> Result<Map<String, Value>, TokenError> {
    let unreadable = TokenError::Unreadable(what);
    let bytes = BASE64.decode(part).map_err(|_| unreadable)?;
    serde_json::from_slice(&bytes).map_err(|_| unreadable)
}

/// What a realm asks for; with an error, why the token that came is not taken.
pub(super) fn challenge(realm: &str, error: Option<&str>) -> String {
    match error {
        None => format!("Bearer realm=\"{realm}\""),
        Some(why) => format!(
            "Bearer realm=\"{realm}\", error=\"invalid_token\", error_description=\"Invalid JWT: {why}\""
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> BTreeMap<String, String> {
        [("fid", "f-1"), ("eid", "e"), ("cid", "c")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    /// A token with these two parts, signed.
    fn signed(key: &TokenKey, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", BASE64.encode(header), BASE64.encode(payload));
        let signature = hmac::sign(&key.0, signed.as_bytes());
        format!("{signed}.{}", BASE64.encode(signature))
    }

    #[test]
    fn a_token_says_what_it_was_made_with_to_the_same_key_only() {
        let key = TokenKey::new(b"key");
        let token = key.sign(&claims());
        assert_eq!(key.open(&token, 0), Ok(claims()));
        let other = TokenKey::new(b"other");
        assert_eq!(other.open(&token, 0), Err(TokenError::Signature));
    }

    #[test]
    fn a_published_token_is_read() {
        // RFC 7515, appendix A.1.
        let key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
                     eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
                     dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let key = TokenKey::new(&BASE64.decode(key).unwrap());
        let read = key.open(token, 1_300_819_380).unwrap();
        assert_eq!((&*read["iss"], &*read["exp"]), ("joe", "1300819380"));
        assert_eq!(read["http://example.com/is_root"], "true");
        assert_eq!(key.open(token, 1_300_819_381), Err(TokenError::Expired));
    }

    #[test]
    fn no_byte_of_a_token_can_be_changed() {
        let key = TokenKey::new(b"key");
        let token = key.sign(&claims());
        for place in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(key.open(&changed, 0).is_err(), "{place}");
        }
        for end in 0..token.len() {
            assert!(key.open(&token[..end], 0).is_err(), "{end}");
        }
    }

    #[test]
    fn what_is_not_signed_so_is_refused() {
        let key = TokenKey::new(b"key");
        let of = |header: &str, payload: &str| key.open(&signed(&key, header, payload), 100);
        let fine = r#"{"alg":"HS256"}"#;
        assert!(of(fine, r#"{"a":1}"#).is_ok());
        assert!(of(r#"{"alg":"HS256","typ":"x"}"#, r#"{"a":1,"exp":100}"#).is_ok());
        for (header, payload, why) in [
            (r#"{"alg":"none"}"#, r#"{"a":1}"#, TokenError::Algorithm),
            (r#"{"alg":"RS256"}"#, r#"{"a":1}"#, TokenError::Algorithm),
            ("{}", r#"{"a":1}"#, TokenError::Algorithm),
            (
                r#"{"alg":"HS256","crit":["x"]}"#,
                r#"{"a":1}"#,
                TokenError::Critical,
            ),
            (
                r#"{"alg":"HS256","typ":1}"#,
                r#"{"a":1}"#,
                TokenError::Unreadable("header"),
            ),
            ("[]", r#"{"a":1}"#, TokenError::Unreadable("header")),
            (fine, "{}", TokenError::NoClaims),
            (fine, "7", TokenError::Unreadable("payload")),
            (fine, r#"{"exp":99}"#, TokenError::Expired),
            (fine, r#"{"exp":"never"}"#, TokenError::Expiry),
        ] {
            assert_eq!(of(header, payload), Err(why), "{header} {payload}");
        }
        for bad in ["", ".", "..", "...", "a.b.c", "a.b", "é.é.é"] {
            assert!(key.open(bad, 0).is_err(), "{bad}");
        }
    }
}
