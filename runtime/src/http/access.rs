//! Who asks over HTTP, and what such a caller may do. This is the one place that decides it. Pure.
//!
//! What changes something, or shows what tasks have written, is for these callers:
//!
//! | node | caller | may |
//! |---|---|---|
//! | any | with an executor's token | what the token names, and nothing else |
//! | `--insecure_http` | anybody else | everything |
//! | any | a web page of another site | change nothing |
//! | bound to loopback | from this machine | everything |
//! | reached from elsewhere | over TLS, with a principal | everything |
//! | reached from elsewhere | any other | nothing |
//!
//! Whether a principal is needed for reading as well, and on loopback, is what the realms say ([`Realm`]); that was
//! looked at before a request gets here.

use std::collections::BTreeMap;
use std::fmt;

use super::Response;

/// Somebody who has proven who they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Principal {
    /// The name; none of those who show a token.
    pub value: Option<String>,
    /// What a token says of its bearer.
    pub claims: BTreeMap<String, String>,
}

impl Principal {
    /// One with a name.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            value: Some(name.into()),
            claims: BTreeMap::new(),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(name) => write!(f, "{name:?}"),
            None => write!(f, "{:?}", self.claims),
        }
    }
}

/// Which endpoints are guarded together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Realm {
    /// For everybody: `/health`, `/version`, `/redirect`.
    Open,
    /// What is only looked at.
    ReadOnly,
    /// What changes something, or may.
    ReadWrite,
    /// One of a component's own, such as `scheduler`.
    Own(&'static str),
}

impl Realm {
    /// Last part of its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::ReadOnly => "readonly",
            Self::ReadWrite => "readwrite",
            Self::Own(name) => name,
        }
    }
}

/// What is asked for, where that is more than to be told of what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// To change something.
    Change,
    /// To change what the caller's own token names: the handler compares them.
    OwnChange,
    /// To see what a task has written.
    Sandbox,
}

/// Whoever sent a request, as far as that is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Caller {
    /// Who they have proven to be.
    pub principal: Option<Principal>,
    /// Whether the request came over TLS.
    pub is_tls: bool,
    /// Whether it can only have come from this machine: nobody else reaches the node, and it was asked by a name of this
    /// machine.
    pub is_here: bool,
    /// Whether a web page of another site asks, by the hand of somebody who looks at it.
    pub is_foreign_page: bool,
    /// Whether the node lets anybody do everything: `--insecure_http`.
    pub trusts_anybody: bool,
    /// Whether the node knows credentials that a caller could show.
    pub knows_credentials: bool,
}

/// Why a caller may not do what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No principal, but one could be shown.
    #[error("401 Unauthorized.")]
    Unproven,
    /// A page of another site.
    #[error("A web page of another site may not change this: use the command line, or curl.")]
    ForeignPage,
    /// In plain from elsewhere.
    #[error("From another machine this is taken over TLS only: use https. See --insecure_http.")]
    Plain,
    /// The node knows no credentials.
    #[error(
        "This is taken from the node's own machine only: nobody can prove here who they are. See --http_credentials \
         and --insecure_http."
    )]
    NoCredentials,
    /// A token for something else.
    #[error("A token of an executor does not allow this.")]
    Token,
}

impl Denied {
    /// Status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::Unproven => 401,
            Self::ForeignPage | Self::Plain | Self::NoCredentials | Self::Token => 403,
        }
    }
}

impl From<Denied> for Response {
    fn from(denied: Denied) -> Self {
        Self::text(denied.status(), denied.to_string())
    }
}

impl Caller {
    /// Whether this caller may do that.
    ///
    /// # Errors
    /// [`Denied`], whose status and text are the answer.
    pub fn may(&self, need: Need) -> Result<(), Denied> {
        let is_token = (self.principal.as_ref()).is_some_and(|who| who.value.is_none());
        if is_token && need != Need::OwnChange {
            return Err(Denied::Token);
        }
        if self.trusts_anybody {
            return Ok(());
        }
        // What a page is told, it hears of its own site only: that is for its browser to see to.
        if self.is_foreign_page && need != Need::Sandbox {
            return Err(Denied::ForeignPage);
        }
        if self.is_here {
            return Ok(());
        }
        // First of all, so that nobody is asked for a password that others could read.
        if !self.is_tls {
            return Err(Denied::Plain);
        }
        match &self.principal {
            Some(_) => Ok(()),
            None if self.knows_credentials => Err(Denied::Unproven),
            None => Err(Denied::NoCredentials),
        }
    }

    /// Name of the principal, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.principal.as_ref()?.value.as_deref()
    }
}

/// For the log.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.principal {
            Some(who) => who.fmt(f),
            None if self.is_here => f.write_str("somebody on this machine"),
            None => f.write_str("somebody"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every caller there can be.
    fn all() -> impl Iterator<Item = Caller> {
        let token = Principal {
            value: None,
            claims: BTreeMap::from([("fid".to_owned(), "f".to_owned())]),
        };
        let who = [None, Some(Principal::named("ops")), Some(token)];
        who.into_iter().flat_map(|principal| {
            (0..32_u8).map(move |bits| Caller {
                principal: principal.clone(),
                is_tls: bits & 1 != 0,
                is_here: bits & 2 != 0,
                is_foreign_page: bits & 4 != 0,
                trusts_anybody: bits & 8 != 0,
                knows_credentials: bits & 16 != 0,
            })
        })
    }

    const NEEDS: [Need; 3] = [Need::Change, Need::OwnChange, Need::Sandbox];

    #[test]
    fn from_elsewhere_nothing_is_done_without_tls_and_a_principal() {
        for caller in all().filter(|caller| !caller.is_here && !caller.trusts_anybody) {
            for need in NEEDS {
                if caller.may(need).is_ok() {
                    assert!(caller.is_tls && caller.principal.is_some(), "{caller:?}");
                }
            }
        }
    }

    #[test]
    fn a_page_of_another_site_changes_nothing_whoever_looks_at_it() {
        for caller in all().filter(|caller| caller.is_foreign_page && !caller.trusts_anybody) {
            assert!(caller.may(Need::Change).is_err(), "{caller:?}");
            assert!(caller.may(Need::OwnChange).is_err(), "{caller:?}");
        }
    }

    #[test]
    fn a_token_allows_what_it_names_and_nothing_else() {
        for caller in all().filter(|caller| {
            let who = caller.principal.as_ref();
            who.is_some_and(|who| who.value.is_none())
        }) {
            assert_eq!(caller.may(Need::Change), Err(Denied::Token));
            assert_eq!(caller.may(Need::Sandbox), Err(Denied::Token));
            let is_let_in = caller.trusts_anybody
                || !caller.is_foreign_page && (caller.is_here || caller.is_tls);
            assert_eq!(caller.may(Need::OwnChange).is_ok(), is_let_in, "{caller:?}");
        }
    }

    #[test]
    fn a_password_is_asked_for_over_tls_only_and_where_one_is_known() {
        for caller in all() {
            for need in NEEDS {
                if caller.may(need) == Err(Denied::Unproven) {
                    assert!(caller.is_tls && caller.knows_credentials, "{caller:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_told_to_each_kind_of_caller() {
        let elsewhere = Caller::default();
        let over_tls = Caller {
            is_tls: true,
            ..Caller::default()
        };
        let may_prove = Caller {
            knows_credentials: true,
            ..over_tls.clone()
        };
        let proven = Caller {
            principal: Some(Principal::named("ops")),
            ..may_prove.clone()
        };
        let here = Caller {
            is_here: true,
            ..Caller::default()
        };
        for (caller, expected) in [
            (elsewhere, Err(Denied::Plain)),
            (over_tls, Err(Denied::NoCredentials)),
            (may_prove, Err(Denied::Unproven)),
            (proven, Ok(())),
            (here, Ok(())),
        ] {
            assert_eq!(caller.may(Need::Change), expected, "{caller:?}");
            assert_eq!(caller.may(Need::Sandbox), expected, "{caller:?}");
        }
        assert_eq!(
            Response::from(Denied::Unproven).body,
            "401 Unauthorized.".as_bytes()
        );
    }
}
