//! Name and password as a client sends them. Pure. Source: security.md §3.2, RFC 7617.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

/// Some clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A name with the password that is to prove it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Claimed {
    pub(super) principal: String,
    pub(super) secret: Vec<u8>,
}

/// The password is for nobody's eyes.
impl std::fmt::Debug for Claimed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Claimed({:?})", self.principal)
    }
}

/// What follows the name of a scheme in the value of `Authorization`; names of schemes have no case.
pub(super) fn after<'a>(scheme: &str, value: &'a str) -> Option<&'a str> {
    let (given, rest) = value.split_once(' ')?;
    given
        .eq_ignore_ascii_case(scheme)
        .then(|| rest.trim_matches(' '))
}

/// Reads the value of `Authorization`; none when it is of another scheme, or makes no sense.
pub(super) fn read(value: &str) -> Option<Claimed> {
    let decoded = BASE64.decode(after("basic", value)?).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let principal = std::str::from_utf8(&decoded[..colon]).ok()?;
    (!principal.is_empty()).then(|| Claimed {
        principal: principal.to_owned(),
        secret: decoded[colon + 1..].to_vec(),
    })
}

/// The value of `Authorization` for this name and password.
pub fn write(principal: &str, secret: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{principal}:{secret}")))
}

/// What a realm asks for.
pub(super) fn challenge(realm: &str) -> String {
    format!("Basic realm=\"{realm}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(value: &str) -> Option<(String, Vec<u8>)> {
        read(value).map(|claimed| (claimed.principal, claimed.secret))
    }

    #[test]
    fn a_name_and_a_password_are_read_as_they_were_written() {
        for (name, secret) in [
            ("ops", "secret"),
            ("ops", ""),
            ("ops", "with:colons:"),
            ("o p s", "ä\u{0}ö"),
        ] {
            let read = pair(&write(name, secret));
            assert_eq!(read, Some((name.to_owned(), secret.as_bytes().to_vec())));
        }
        let plain = Some(("a".to_owned(), b"b".to_vec()));
        for same in ["Basic YTpi", "basic YTpi", "BASIC   YTpi ", "Basic YTpi"] {
            assert_eq!(pair(same), plain, "{same}");
        }
        // With padding and without.
        assert_eq!(pair("Basic YTo="), Some(("a".to_owned(), Vec::new())));
        assert_eq!(pair("Basic YTo"), Some(("a".to_owned(), Vec::new())));
    }

    #[test]
    fn what_is_no_name_and_password_is_none() {
        for bad in [
            "",
            " ",
            "Basic",
            "Basic ",
            "Basic !!!!",
            "Basic YWI=",
            "Basic OmI=",
            "Basic YTpi YTpi",
            "Bearer YTpi",
            "BasicYTpi",
            "Basic\tYTpi",
            "Basic /zpi",
            "Basic YTpi====",
        ] {
            assert_eq!(pair(bad), None, "{bad}");
        }
    }
}
