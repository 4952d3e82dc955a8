//! What commands write: to a reader that may have gone, on a disk that may be full, to a terminal that obeys whatever
//! control characters it is sent.

use std::borrow::Cow;
use std::io::{ErrorKind, Write as _};

use anyhow::Context as _;

/// Nobody reads any more, as behind `head`: the command is to end, and it is no error.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the standard output any more")]
pub(crate) struct ReaderGone;

/// Writes a line to the standard output.
///
/// # Errors
/// [`ReaderGone`]; else what the system says, as on a full disk.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes to the standard output, to the last byte.
///
/// # Errors
/// As [`line()`].
pub(crate) fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        Err(error) => Err(error).context("cannot write to the standard output"),
    }
}

/// Writes a line to the standard error, if that can be written to.
pub(crate) fn complain(text: &str) {
    let _nobody = writeln!(std::io::stderr(), "meseta: {}", safe(text));
}

/// Whether a terminal, or a reader, would be told something else by this character than what is seen: control
/// characters, and those that turn the direction of what follows.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text of others, made fit for a terminal: characters that it would obey are shown as `\u{1b}`. Ends of lines stay.
pub(crate) fn safe(text: &str) -> Cow<'_, str> {
    replaced(text, |c, into| {
        if c == '\n' {
            into.push(c);
        } else {
            into.extend(c.escape_default());
        }
    })
}

/// As [`safe`], for one line.
pub(crate) fn safe_line(text: &str) -> Cow<'_, str> {
    replaced(text, |c, into| into.extend(c.escape_default()))
}

/// JSON in which no character is left that a terminal would obey; it means the same.
pub(crate) fn json(value: &serde_json::Value, pretty: bool) -> String {
    let text = if pretty {
        format!("{value:#}")
    } else {
        value.to_string()
    };
    // Below U+0020 all are escaped already, but for the ends of lines between values; all others are in one unit.
    let shown = replaced(&text, |c, into| {
        if c == '\n' {
            into.push(c);
        } else {
            into.push_str(&format!("\\u{:04x}", u32::from(c)));
        }
    });
    shown.into_owned()
}

/// All texts within a JSON value made safe for one line of a terminal.
pub(crate) fn made_safe(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::String(text) => Value::String(safe_line(&text).into_owned()),
        Value::Array(all) => Value::Array(all.into_iter().map(made_safe).collect()),
        Value::Object(all) => {
            let all = all.into_iter();
            let safe = all.map(|(name, one)| (safe_line(&name).into_owned(), made_safe(one)));
            Value::Object(safe.collect())
        }
        other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other,
    }
}

fn replaced(text: &str, escape: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unsafe(c) {
            escape(c, &mut shown);
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clears the screen, in two spellings; turns round what follows; a bell; an end of a line.
    const EVIL: &str = "a\u{1b}[2Jb\u{9b}2Jc\u{202e}d\u{7}\u{7f}\ne ü";

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        let shown = r"a\u{1b}[2Jb\u{9b}2Jc\u{202e}d\u{7}\u{7f}";
        assert_eq!(safe(EVIL), format!("{shown}\ne ü"));
        assert_eq!(safe_line(EVIL), format!(r"{shown}\ne ü"));
        assert!(matches!(safe("TASK_RUNNING (ü)"), Cow::Borrowed(_)));
    }

    #[test]
    fn json_keeps_its_meaning_and_loses_what_a_terminal_would_obey() {
        let value = serde_json::json!({ EVIL: [EVIL] });
        for pretty in [false, true] {
            let text = json(&value, pretty);
            assert!(!text.replace('\n', "").contains(is_unsafe), "{text}");
            let read: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(read, value);
        }
    }

    #[test]
    fn texts_within_a_value_are_made_safe_wherever_they_are() {
        let safe = safe_line(EVIL).into_owned();
        assert_eq!(
            made_safe(serde_json::json!({ EVIL: [EVIL, 1, { "a": EVIL }] })),
            serde_json::json!({ safe.as_str(): [&safe, 1, { "a": &safe }] })
        );
    }
}
