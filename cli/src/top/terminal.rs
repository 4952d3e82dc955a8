//! The terminal: its other screen, keys without Enter, and its own state again at the end.

use std::io::{Read as _, Write as _};

use nix::sys::termios::{
    LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::view::fit;

/// To the other screen, without a cursor.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l";
/// Back again.
const LEAVE: &[u8] = b"\x1b[?25h\x1b[?1049l";
/// To the upper left corner.
const HOME: &[u8] = b"\x1b[H";
/// Clears to the end of the line, and begins the next.
const NEXT: &[u8] = b"\x1b[K\r\n";
/// Clears to the end of the screen.
const CLEAR: &[u8] = b"\x1b[J";

/// What a key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Quit,
    Sort,
    Other,
}

/// The terminal while the view is on it.
pub(crate) struct Screen {
    /// As it was found; none when there are no keys to read.
    found: Option<Termios>,
    keys: UnboundedReceiver<Key>,
}

impl Screen {
    pub(crate) fn open() -> anyhow::Result<Self> {
        let found = keys_at_once();
        let (sender, keys) = unbounded_channel();
        if found.is_some() {
            // A thread of its own, which ends with the program: a read cannot be taken back.
            std::thread::spawn(move || {
                for byte in std::io::stdin().lock().bytes() {
                    let key = match byte {
                        Ok(b'q' | b'Q') => Key::Quit,
                        Ok(b's' | b'S') => Key::Sort,
                        Ok(_) => Key::Other,
                        Err(_) => return,
                    };
                    if sender.send(key).is_err() {
                        return;
                    }
                }
            });
        }
        let screen = Self { found, keys };
        std::io::stdout().write_all(ENTER)?;
        Ok(screen)
    }

    /// The next key; never, when there are none to come.
    pub(crate) async fn key(&mut self) -> Key {
        match self.keys.recv().await {
            Some(key) => key,
            None => std::future::pending().await,
        }
    }

    /// Shows a page, cut to the size of the terminal.
    pub(crate) fn show(&self, lines: &[String]) -> std::io::Result<()> {
        let size = console::Term::stdout().size_checked();
        let (rows, columns) = size.map_or((24, 80), |(rows, columns)| {
            (usize::from(rows), usize::from(columns))
        });
        // The last line stays free, since a new line there would scroll.
        let lines = fit(lines, rows.saturating_sub(1), columns);
        let mut page = HOME.to_vec();
        for line in lines {
            page.extend(line.bytes());
            page.extend(NEXT);
        }
        page.extend(CLEAR);
        let mut out = std::io::stdout().lock();
        out.write_all(&page)?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal may be gone; then there is nothing to put back.
        let _gone = std::io::stdout().write_all(LEAVE);
        let _gone = std::io::stdout().flush();
        if let Some(found) = &self.found {
            let _gone = tcsetattr(std::io::stdin(), SetArg::TCSANOW, found);
        }
    }
}

/// Has keys come without Enter and unseen; the state before, or none when standard input is no terminal.
fn keys_at_once() -> Option<Termios> {
    let found = tcgetattr(std::io::stdin()).ok()?;
    let mut keys = found.clone();
    keys.local_flags &= !(LocalFlags::ICANON | LocalFlags::ECHO);
    keys.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
    keys.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
    tcsetattr(std::io::stdin(), SetArg::TCSANOW, &keys).ok()?;
    Some(found)
}
