//! Where a request comes from, as far as its headers tell: from this machine, and whether a web page asks.

use axum::http::{HeaderMap, Uri, header};

use crate::pid::Address;

/// Where from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    /// It was asked by a name of this machine. What a browser calls by another name, a page may have had it call.
    pub(super) is_here: bool,
    /// A page of another site asks.
    pub(super) is_foreign_page: bool,
}

impl Origin {
    /// That of a request to a node that only its own machine reaches, or not.
    pub(super) fn of(on_loopback: bool, headers: &HeaderMap) -> Self {
        let mut given = headers.get_all(header::HOST).iter();
        let (first, more) = (given.next(), given.next());
        let host = first
            .and_then(|host| host.to_str().ok())
            .and_then(|host| host.parse::<axum::http::uri::Authority>().ok());
        // A name that nobody can read is not this machine's.
        let by_own_name = match &host {
            Some(host) => more.is_none() && Address::new(host.host(), 0).is_loopback(),
            None => first.is_none(),
        };
        let is_foreign = headers
            .get_all("sec-fetch-site")
            .iter()
            .any(|site| site != "none" && site != "same-origin");
        // Browsers that do not say the above say at least where a page is from.
        let is_of_other_site = [header::ORIGIN, header::REFERER]
            .iter()
            .flat_map(|name| headers.get_all(name))
            .any(|page| {
                let page = page.to_str().ok().and_then(|page| page.parse::<Uri>().ok());
                page.as_ref().and_then(Uri::authority) != host.as_ref() || host.is_none()
            });
        Self {
            is_here: on_loopback && by_own_name,
            is_foreign_page: is_foreign || is_of_other_site,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_on_the_machine_and_no_web_page_is_here_by_its_own_will() {
        let asked = |on_loopback, headers: &[(&'static str, &'static str)]| {
            let headers = headers.iter().map(|(name, value)| {
                let name = header::HeaderName::from_static(name);
                (name, header::HeaderValue::from_static(value))
            });
            let origin = Origin::of(on_loopback, &headers.collect());
            (origin.is_here, origin.is_foreign_page)
        };
        let here = ("host", "127.0.0.1:5050");
        let fine = (true, false);
        assert_eq!(asked(true, &[here]), fine);
        assert_eq!(asked(true, &[]), fine);
        let by_name = [("host", "localhost:5050"), ("sec-fetch-site", "none")];
        assert_eq!(asked(true, &by_name), fine);
        assert_eq!(asked(true, &[("host", "[::1]:5050")]), fine);
        assert_eq!(asked(false, &[here]), (false, false));
        let rebound = ("host", "rebound.example:5050");
        assert_eq!(asked(true, &[rebound]), (false, false));
        let page = (true, true);
        assert_eq!(asked(true, &[here, ("sec-fetch-site", "cross-site")]), page);
        for site in [
            "http://evil.example",
            "http://evil.example/x",
            "http://127.0.0.1:80/",
            "null",
            "",
        ] {
            assert_eq!(asked(true, &[here, ("origin", site)]), page, "{site}");
            assert_eq!(asked(true, &[here, ("referer", site)]), page, "{site}");
            assert_eq!(asked(true, &[("origin", site)]), page, "{site}");
        }
        let own = ("origin", "http://127.0.0.1:5050");
        assert_eq!(asked(true, &[here, own]), fine);
        let referer = ("referer", "http://127.0.0.1:5050/x");
        assert_eq!(asked(true, &[here, referer]), fine);
        let evil = ("referer", "http://evil.example/");
        assert_eq!(asked(true, &[here, own, evil]), page);
        let elsewhere = [
            ("host", "a.example:5050"),
            ("origin", "https://a.example:5050"),
        ];
        assert_eq!(asked(false, &elsewhere), (false, false));
    }
}
