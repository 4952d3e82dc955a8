//! `meseta credentials`: entries for the file that `--http_credentials` of masters and agents names.

use std::io::{BufRead, IsTerminal as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use meseta_runtime::http::auth::credentials::{Entry, hash};

#[derive(Debug, Args)]
pub(crate) struct Flags {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the entry of a principal whose password is the first line of standard input.
    Hash {
        /// Name of the principal; no colon.
        principal: String,
        /// Print a whole file with this one entry.
        #[arg(long, env = "MESETA_FILE")]
        file: bool,
    },
}

pub(crate) fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let Action::Hash { principal, file } = &flags.command;
    let input = std::io::stdin();
    if input.is_terminal() {
        crate::out::complain("the password, which is shown as you write it, and Enter:");
    }
    let entry = entry(principal, input.lock())?;
    let text = if *file {
        serde_json::json!({ "credentials": [entry] }).to_string()
    } else {
        serde_json::to_string(&entry)?
    };
    crate::out::line(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn entry(principal: &str, mut input: impl BufRead) -> anyhow::Result<Entry> {
    anyhow::ensure!(
        !principal.is_empty() && !principal.contains(':'),
        "a principal is a name without a colon: `{principal}` is none"
    );
    let mut password = String::new();
    input
        .read_line(&mut password)
        .context("the password on standard input")?;
    let password = password.strip_suffix('\n').unwrap_or(&password);
    let password = password.strip_suffix('\r').unwrap_or(password);
    anyhow::ensure!(
        !password.is_empty(),
        "there is no password on standard input: write it there, such as with `meseta credentials hash {principal} < file`"
    );
    Ok(Entry {
        principal: principal.to_owned(),
        secret: hash(password.as_bytes())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_hash_of_the_first_line() {
        let made = entry("ops", "secret\r\nmore".as_bytes()).unwrap();
        assert_eq!(made.principal, "ops");
        assert!(made.secret.starts_with("$argon2id$"), "{}", made.secret);
        for (principal, input) in [("", "x"), ("a:b", "x"), ("ops", ""), ("ops", "\n")] {
            assert!(
                entry(principal, input.as_bytes()).is_err(),
                "{principal} {input:?}"
            );
        }
    }
}
