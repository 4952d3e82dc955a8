//! What to log, as text: `info,meseta_master=debug`.
//! Pure: reads text and says what is wrong with it.
//!
//! Directives are separated by commas: a level for all (`error`, `warn`, `info`, `debug`, `trace`, `off`), or
//! `target=level` for the module of that path and all that begin with it. Of two that fit, the longer target counts.
//! `target[span{field=value}]=level` is for spans with this very value.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Longest text taken, in bytes.
pub const MAX_BYTES: usize = 4_096;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Why a text is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDirectives {
    /// One of them cannot be read.
    #[error(
        "`{directive}` {why}: use error, warn, info, debug, trace or off, or a filter such as \
         `info,meseta_runtime=debug`"
    )]
    Directive {
        /// The one that cannot be read.
        directive: String,
        /// What is wrong with it.
        why: String,
    },
    /// There are none.
    #[error("no level is named: use one such as `info,meseta_runtime=debug`, or `off` for silence")]
    None,
    /// The text is longer than [`MAX_BYTES`].
    #[error(
        "{0} bytes are too many for a filter, which has at most {MAX_BYTES}: name fewer targets"
    )]
    TooLong(usize),
}

/// The filter that a text means.
///
/// # Errors
/// [`BadDirectives`], naming the directive at fault.
pub fn parse(text: &str) -> Result<EnvFilter, BadDirectives> {
    if text.len() > MAX_BYTES {
        return Err(BadDirectives::TooLong(text.len()));
    }
    let parts = text.split(',').map(str::trim);
    let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return Err(BadDirectives::None);
    }
    for part in &parts {
        check(part)?;
    }
    // Errors of what nobody names are logged, unless a level for all says otherwise.
    let all = format!("error,{}", parts.join(","));
    filter(&all).map_err(|error| BadDirectives::Directive {
        directive: text.to_owned(),
        why: format!("cannot be read ({error})"),
    })
}

/// Values of fields are taken as they stand: a few bytes of a regular expression can ask for any amount of memory.
fn filter(directives: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().with_regex(false).parse(directives)
}

/// Looks at one directive.
fn check(text: &str) -> Result<(), BadDirectives> {
    let bad = |why: &str| BadDirectives::Directive {
        directive: text.to_owned(),
        why: why.to_owned(),
    };
    let is_level = |word: &str| LEVELS.contains(&word.to_lowercase().as_str());
    // A single word that is no level would be taken for a module's name, and nothing of all others be logged.
    if !text.contains(['=', '[']) && !is_level(text) {
        return Err(bad("is no level"));
    }
    let (target, level) = match text.rsplit_once('=') {
        Some((target, level)) if !level.contains(']') => (target, Some(level)),
        Some(_) | None => ("", None),
    };
    if let Some(level) = level {
        if !is_level(level.trim()) {
            return Err(bad(&format!("sets no level: `{level}` is none")));
        }
        if target.trim().is_empty() {
            return Err(bad("names no target"));
        }
        if target.trim() != target || level.trim() != level {
            return Err(bad("has a space beside its `=`"));
        }
    }
    match filter(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(bad(&format!("cannot be read ({error})"))),
    }
}

/// What a verbosity of 0 and more, as Mesos counts it, means beside what is logged anyway: 1 adds what the actors say
/// to themselves, 2 and more everything of Meseta.
pub fn verbosity(base: &str, level: u32) -> String {
    match level {
        0 => base.to_owned(),
        1 => format!("{base},meseta=debug"),
        _ => format!("{base},meseta=trace"),
    }
}

/// The verbosity that a filter in force means, for who counts as Mesos does.
pub fn as_verbosity(base: &str, directives: &str) -> u32 {
    (1..=2)
        .rev()
        .find(|level| verbosity(base, *level) == directives)
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bad_one_of_several_is_named() {
        for (text, bad) in [
            ("verbose", "verbose"),
            ("infoo,meseta_runtime=debug", "infoo"),
            ("info,meseta_runtime=loud", "meseta_runtime=loud"),
            ("info,=debug", "=debug"),
            ("info, meseta_runtime = debug", "meseta_runtime = debug"),
            ("info,meseta_runtime=", "meseta_runtime="),
            ("info,meseta_runtime[=debug", "meseta_runtime[=debug"),
        ] {
            match parse(text) {
                Err(BadDirectives::Directive { directive, .. }) => assert_eq!(directive, bad),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert!(matches!(parse(" , "), Err(BadDirectives::None)));
    }

    #[test]
    fn levels_of_any_case_and_targets_are_read() {
        for good in [
            "info",
            "WARN",
            "off",
            "info,meseta_runtime=debug",
            "info, meseta_runtime::transport=trace,",
            "meseta_runtime[handle{pid=7}]=debug",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn what_nobody_names_is_logged_from_errors_on_unless_a_level_says_otherwise() {
        let shown = |text: &str| parse(text).unwrap().to_string();
        assert_eq!(shown("meseta_runtime=debug"), "meseta_runtime=debug,error");
        assert_eq!(
            shown("meseta_runtime=debug,info"),
            "meseta_runtime=debug,info"
        );
        assert_eq!(shown("off"), "off");
    }

    #[test]
    fn the_value_of_a_field_is_no_pattern() {
        // As a pattern it has hundreds of thousands of states.
        let value = format!("(a|b)*a{}", "(a|b)".repeat(18));
        let text = format!("meseta_runtime[handle{{pid={value}}}]=debug");
        assert!(parse(&text).is_ok());
    }

    #[test]
    fn a_filter_may_have_so_many_bytes_and_no_more() {
        let long = "info,".repeat(MAX_BYTES / 5);
        assert!(parse(&long).is_ok());
        let longer = format!("{long}info,");
        assert!(matches!(parse(&longer), Err(BadDirectives::TooLong(_))));
    }

    #[test]
    fn verbosity_adds_to_the_base_and_is_told_again() {
        let level = |level| as_verbosity("warn", &verbosity("warn", level));
        assert_eq!((level(0), level(1), level(2), level(3)), (0, 1, 2, 2));
        assert_eq!(as_verbosity("warn", "debug"), 0);
        for level in 0..3 {
            assert!(parse(&verbosity("warn", level)).is_ok());
        }
    }
}
