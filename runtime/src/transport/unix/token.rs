//! The token by which a host knows one guest.

use std::fmt;

use rand::TryRng as _;
use rand::rngs::SysRng;

use super::UnixError;
use crate::identity::fingerprint;

/// SHA-256 of a token: what the host keeps, from which the token cannot be found.
pub type TokenHash = [u8; 32];

/// 32 random bytes that a host makes for one guest and hands to it alone. Debug output hides them.
#[derive(Clone, PartialEq, Eq)]
pub struct GuestToken([u8; 32]);

impl GuestToken {
    /// A fresh token.
    ///
    /// # Errors
    /// [`UnixError::Random`].
    pub fn generate() -> Result<Self, UnixError> {
        let mut bytes = [0; 32];
        SysRng
            .try_fill_bytes(&mut bytes)
            .map_err(|error| UnixError::Random(error.to_string()))?;
        Ok(Self(bytes))
    }

    /// The token of these bytes, as a guest was handed it; `None` when they are not 32.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes. Only for handing them to the guest, and for showing them to the host.
    pub fn secret(&self) -> &[u8] {
        &self.0
    }

    /// What the host keeps.
    pub fn hash(&self) -> TokenHash {
        hash(&self.0)
    }
}

impl fmt::Debug for GuestToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GuestToken")
    }
}

/// Hash of what somebody shows as a token. Hashes are compared, so how long that takes tells nothing of a token.
pub(super) fn hash(shown: &[u8]) -> TokenHash {
    fingerprint(shown)
}
