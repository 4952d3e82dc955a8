//! Paths as clients write them, and the one form in which they are looked up. Pure.
//!
//! Mesos' own clients ask for `/state`, `/state/`, `//state`, `/master/state.json` and `/slave%281%29/state`. All of them
//! mean one thing each, so what they mean is found out once, before anything is looked up.

use std::borrow::Cow;

/// The paths that are served under names that end like the old aliases do.
const OWN_NAMES: [&str; 2] = ["/system/stats.json", "/openapi.json"];

/// The form in which a path is looked up: without empty parts, without the old ending `.json`, and with characters
/// that need no encoding written out.
pub(super) fn plain(path: &str) -> Cow<'_, str> {
    let is_plain = !path.contains("//")
        && !path.contains('%')
        && !path.ends_with(".json")
        && (path == "/" || !path.ends_with('/'));
    if is_plain {
        return Cow::Borrowed(path);
    }
    let decoded = decode(path);
    let mut out = String::with_capacity(decoded.len());
    for part in decoded.split('/').filter(|part| !part.is_empty()) {
        out.push('/');
        out.push_str(part);
    }
    let of_help = out.strip_prefix("/help").unwrap_or(&out);
    if !OWN_NAMES.contains(&of_help)
        && let Some(name) = out.strip_suffix(".json")
        && !name.ends_with('/')
    {
        out.truncate(name.len());
    }
    if out.is_empty() {
        out.push('/');
    }
    Cow::Owned(out)
}

/// Writes out what needs no encoding. Anything else stays encoded: no path that is served has it.
fn decode(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let byte =
            (rest.get(at + 1..at + 3)).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let plain = byte.map(char::from).filter(|c| {
            c.is_ascii_alphanumeric() || matches!(c, '(' | ')' | '.' | '-' | '_' | '@')
        });
        if let Some(c) = plain {
            out.push(c);
            rest = &rest[at + 3..];
        } else {
            out.push('%');
            rest = &rest[at + 1..];
        }
    }
    out.push_str(rest);
    out
}

/// A path and all that stand above it, the longest first: whoever serves `/api/v1` serves `/api/v1/operator` too.
pub(crate) fn and_above(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| {
        let (above, _) = path.rsplit_once('/')?;
        (!above.is_empty()).then_some(above)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_to_write_a_path_are_one() {
        for (written, meant) in [
            ("/state", "/state"),
            ("/state/", "/state"),
            ("//state", "/state"),
            ("/master//state.json/", "/master/state"),
            ("/slave%281%29/state", "/slave(1)/state"),
            (
                "/slave%281%29/monitor/statistics.json",
                "/slave(1)/monitor/statistics",
            ),
            ("/system/stats.json", "/system/stats.json"),
            ("/system/stats.json/", "/system/stats.json"),
            ("/openapi.json", "/openapi.json"),
            ("/help/system/stats.json", "/help/system/stats.json"),
            ("/help/master/state.json", "/help/master/state"),
            ("/", "/"),
            ("//", "/"),
            ("", ""),
            ("/.json", "/.json"),
            ("/a%2fb", "/a%2fb"),
            ("/a%", "/a%"),
            ("/a%2", "/a%2"),
            ("/a%zz", "/a%zz"),
            ("/a%\u{e4}\u{e4}", "/a%\u{e4}\u{e4}"),
        ] {
            assert_eq!(plain(written), meant, "{written}");
            assert_eq!(plain(&plain(written)), meant, "{written} twice");
        }
    }

    #[test]
    fn the_longest_path_that_is_served_wins() {
        let all: Vec<&str> = and_above("/api/v1/scheduler").collect();
        assert_eq!(all, ["/api/v1/scheduler", "/api/v1", "/api"]);
        assert_eq!(and_above("/").collect::<Vec<_>>(), ["/"]);
        assert_eq!(and_above("").collect::<Vec<_>>(), [""]);
    }
}
