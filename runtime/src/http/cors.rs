//! Which pages of other sites may read what this node answers (`--http_cors_origins`).
//!
//! Without the flag none may. A listed origin may read everything that the person in front of it may, with their password, and
//! call what only looks by POST; `*` lets any page read what needs no password, but no files, and call nothing. Neither lets a page
//! change anything: that stays refused ([`super::access`]).

use std::collections::BTreeSet;
use std::str::FromStr;

use axum::http::{HeaderMap, HeaderValue, Method, Request, Uri, header};

use super::Response;

/// For how long a browser may remember what it was told, in seconds.
const MAX_AGE: &str = "600";

/// Origins whose pages may read answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    any: bool,
    listed: BTreeSet<String>,
}

impl FromStr for Origins {
    type Err = String;

    /// `*`, or origins such as `https://board.example:8443` with commas between.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut origins = Self::default();
        for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
            if one == "*" {
                origins.any = true;
                continue;
            }
            let is_origin = one.parse::<Uri>().ok().is_some_and(|uri| {
                let whole = uri
                    .scheme_str()
                    .zip(uri.authority())
                    .map(|(s, a)| format!("{s}://{a}"));
                whole.as_deref() == Some(one) && !one.contains('@')
            });
            if !is_origin {
                return Err(format!(
                    "{one:?} is no origin: write scheme://host or scheme://host:port without a path, or * for all"
                ));
            }
            // As browsers write it: without the port that follows from the scheme.
            let one = one.to_lowercase();
            let usual = [("https://", ":443"), ("http://", ":80")];
            let port = (usual.iter())
                .find(|(scheme, port)| one.starts_with(scheme) && one.ends_with(port));
            let end = one.len() - port.map_or(0, |(_, port)| port.len());
            origins.listed.insert(one[..end].to_owned());
        }
        Ok(origins)
    }
}

impl std::fmt::Display for Origins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let any = self.any.then_some("*");
        let all: Vec<&str> = any
            .into_iter()
            .chain(self.listed.iter().map(String::as_str))
            .collect();
        f.write_str(&all.join(","))
    }
}

/// What a request's page may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Page {
    /// No page asks, or one that may read nothing.
    None,
    /// Any page may read this.
    Any,
    /// This one may read it.
    Listed(HeaderValue),
}

impl Origins {
    /// The page behind a request.
    pub(super) fn page<B>(&self, request: &Request<B>) -> Page {
        let Some(origin) = request.headers().get(header::ORIGIN) else {
            return Page::None;
        };
        if origin
            .to_str()
            .is_ok_and(|origin| self.listed.contains(&origin.to_lowercase()))
        {
            return Page::Listed(origin.clone());
        }
        if self.any && !request.uri().path().contains("files/") {
            return Page::Any;
        }
        Page::None
    }

    /// Whether answers depend on who asks.
    pub(super) fn depend(&self) -> bool {
        !self.listed.is_empty()
    }
}

impl Page {
    /// The answer to a browser that asks beforehand what a page may do, if it does.
    pub(super) fn preflight<B>(&self, request: &Request<B>) -> Option<Response> {
        let wanted = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD);
        if *request.method() != Method::OPTIONS || wanted.is_none() {
            return None;
        }
        let methods = match self {
            Self::None => return None,
            Self::Any => "GET, HEAD",
            Self::Listed(_) => "GET, HEAD, POST",
        };
        let headers = match self {
            Self::Listed(_) => {
                "Accept, Authorization, Content-Type, If-None-Match, Mesos-Stream-Id"
            }
            Self::Any | Self::None => "Accept, If-None-Match",
        };
        Some(
            Response::empty()
                .with_status(204)
                .with_header("access-control-allow-methods", methods)
                .with_header("access-control-allow-headers", headers)
                .with_header("access-control-max-age", MAX_AGE),
        )
    }

    /// Tells the browser that the page may read this answer.
    pub(super) fn allow(&self, headers: &mut HeaderMap) {
        let origin = match self {
            Self::None => return,
            Self::Any => HeaderValue::from_static("*"),
            Self::Listed(origin) => {
                headers.insert(
                    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
                    HeaderValue::from_static("true"),
                );
                origin.clone()
            }
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("ETag, Location, Mesos-Stream-Id"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str, origin: &str) -> Request<()> {
        let mut request = Request::builder().method(method).uri(path);
        if !origin.is_empty() {
            request = request.header("origin", origin);
        }
        if method == "OPTIONS" {
            request = request.header("access-control-request-method", "GET");
        }
        request.body(()).unwrap()
    }

    /// Which origin is allowed, and whether with credentials.
    fn told(flag: &str, path: &str, origin: &str) -> (Option<String>, bool) {
        let origins: Origins = flag.parse().unwrap();
        let mut headers = HeaderMap::new();
        origins
            .page(&request("GET", path, origin))
            .allow(&mut headers);
        let allowed = headers.get("access-control-allow-origin");
        (
            allowed.map(|value| value.to_str().unwrap().to_owned()),
            headers.contains_key("access-control-allow-credentials"),
        )
    }

    #[test]
    fn only_who_is_listed_reads_and_never_any_page_with_a_password() {
        let (board, other) = ("https://board.example", "https://other.example");
        let yes = |origin: &str| (Some(origin.to_owned()), origin != "*");
        for (flag, path, origin, expected) in [
            ("", "/state", board, (None, false)),
            (board, "/state", board, yes(board)),
            (
                board,
                "/state",
                "https://BOARD.example",
                yes("https://BOARD.example"),
            ),
            (board, "/files/read", board, yes(board)),
            ("https://board.example:443", "/state", board, yes(board)),
            ("http://x:80", "/state", "http://x", yes("http://x")),
            (board, "/state", other, (None, false)),
            (board, "/state", "https://board.example:8443", (None, false)),
            (board, "/state", "null", (None, false)),
            (board, "/state", "", (None, false)),
            ("*", "/state", other, yes("*")),
            ("*", "/slave(1)/files/read", other, (None, false)),
            ("*,https://board.example", "/state", board, yes(board)),
            ("*,https://board.example", "/state", other, yes("*")),
        ] {
            assert_eq!(told(flag, path, origin), expected, "{flag} {path} {origin}");
        }
    }

    #[test]
    fn a_browser_that_asks_beforehand_hears_what_a_page_may() {
        let methods = |flag: &str, method: &str| {
            let origins: Origins = flag.parse().unwrap();
            let request = request(method, "/state", "http://x");
            let answer = origins.page(&request).preflight(&request)?;
            assert_eq!(answer.status, 204);
            let methods = answer
                .headers
                .into_iter()
                .find(|(name, _)| name.ends_with("methods"));
            methods.map(|(_, methods)| methods)
        };
        assert_eq!(methods("http://x", "OPTIONS").unwrap(), "GET, HEAD, POST");
        assert_eq!(methods("*", "OPTIONS").unwrap(), "GET, HEAD");
        assert_eq!(methods("", "OPTIONS"), None);
        assert_eq!(methods("*", "GET"), None);
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "board.example",
            "https://x/",
            "https://x/path",
            "https://",
            "null",
            "https://u@x",
        ] {
            assert!(text.parse::<Origins>().is_err(), "{text}");
        }
        let origins: Origins = " https://b , https://A:1,*".parse().unwrap();
        assert_eq!(origins.to_string(), "*,https://a:1,https://b");
    }
}
