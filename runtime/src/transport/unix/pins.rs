//! Which guests may come over the socket, and what they must show.
//!
//! Pure. A guest is known by three things that must fit together: the id it claims, the token it was given, and the
//! user id that the kernel says it has. A user none of whose guests is awaited is turned away before it is listened to.

use std::collections::HashMap;
use std::sync::Arc;

use super::TokenHash;

/// One guest that may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pinned {
    pub(super) role: Arc<str>,
    pub(super) token: TokenHash,
    pub(super) uid: u32,
}

/// Why somebody is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error(
        "no guest of user {0} is awaited: only what this node has started for that user may connect"
    )]
    User(u32),
    #[error(
        "no guest {0} is awaited: it has been ended, or was started by another run of this node"
    )]
    Unknown(String),
    #[error(
        "guest {id} comes as user {uid} and not as {expected}: it must stay the user it was started as"
    )]
    OtherUser { id: String, uid: u32, expected: u32 },
    #[error(
        "guest {0} does not show its token: it must connect with the credential it was started with"
    )]
    Token(String),
}

/// The guests that may connect.
#[derive(Debug, Default)]
pub(super) struct Pins {
    by_id: HashMap<Arc<str>, Pinned>,
    /// How many of them each user has.
    users: HashMap<u32, usize>,
}

impl Pins {
    /// Adds a guest; `true` when this replaces another proof of the same id.
    pub(super) fn add(&mut self, id: Arc<str>, guest: Pinned) -> bool {
        *self.users.entry(guest.uid).or_default() += 1;
        let older = self.by_id.insert(id, guest.clone());
        if let Some(older) = &older {
            self.forget_user(older.uid);
        }
        older.is_some_and(|older| older != guest)
    }

    pub(super) fn remove(&mut self, id: &str) {
        if let Some(guest) = self.by_id.remove(id) {
            self.forget_user(guest.uid);
        }
    }

    fn forget_user(&mut self, uid: u32) {
        if let Some(count) = self.users.get_mut(&uid) {
            *count -= 1;
            if *count == 0 {
                self.users.remove(&uid);
            }
        }
    }

    pub(super) fn get(&self, id: &str) -> Option<&Pinned> {
        self.by_id.get(id)
    }

    /// Whether anybody of this user may connect at all.
    pub(super) fn expects(&self, uid: u32) -> Result<(), Refusal> {
        if self.users.contains_key(&uid) {
            Ok(())
        } else {
            Err(Refusal::User(uid))
        }
    }

    /// The guest of this id, when user and token are its own.
    pub(super) fn check(&self, id: &str, uid: u32, token: &TokenHash) -> Result<&Pinned, Refusal> {
        let Some(guest) = self.get(id) else {
            return Err(Refusal::Unknown(id.to_owned()));
        };
        if guest.uid != uid {
            return Err(Refusal::OtherUser {
                id: id.to_owned(),
                uid,
                expected: guest.uid,
            });
        }
        if guest.token != *token {
            return Err(Refusal::Token(id.to_owned()));
        }
        Ok(guest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(uid: u32, token: u8) -> Pinned {
        Pinned {
            role: "executor".into(),
            token: [token; 32],
            uid,
        }
    }

    #[test]
    fn id_user_and_token_must_fit_together() {
        let mut pins = Pins::default();
        assert!(!pins.add("a".into(), guest(7, 1)));
        assert!(!pins.add("b".into(), guest(8, 2)));
        assert_eq!(pins.check("a", 7, &[1; 32]), Ok(&guest(7, 1)));
        assert_eq!(
            pins.check("a", 7, &[2; 32]),
            Err(Refusal::Token("a".into()))
        );
        assert_eq!(
            pins.check("c", 7, &[1; 32]),
            Err(Refusal::Unknown("c".into()))
        );
        let other = pins.check("a", 8, &[1; 32]).unwrap_err();
        let expected = Refusal::OtherUser {
            id: "a".into(),
            uid: 8,
            expected: 7,
        };
        assert_eq!(other, expected);
    }

    #[test]
    fn a_user_is_expected_while_one_of_its_guests_is() {
        let mut pins = Pins::default();
        pins.add("a".into(), guest(7, 1));
        pins.add("b".into(), guest(7, 2));
        assert!(
            pins.add("a".into(), guest(8, 1)),
            "another user, another guest"
        );
        assert!(!pins.add("a".into(), guest(8, 1)));
        assert_eq!((pins.expects(7), pins.expects(8)), (Ok(()), Ok(())));
        pins.remove("b");
        assert_eq!(pins.expects(7), Err(Refusal::User(7)));
        pins.remove("a");
        pins.remove("a");
        assert_eq!(pins.expects(8), Err(Refusal::User(8)));
    }
}
