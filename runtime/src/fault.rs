//! Fault points: named places at which a test ends a program as `kill -9` would, between two things that it does.
//!
//! `MESETA_FAULT_POINT` names a file. A program that comes to a point whose name is in that file takes the file away and
//! kills itself: so each order kills once, and whoever starts the program again may order the next. In release builds
//! there is nothing of this in a program.

use std::path::PathBuf;
use std::sync::OnceLock;

use nix::sys::signal::{Signal, raise};

/// Names the file with the order.
pub const VARIABLE: &str = "MESETA_FAULT_POINT";

/// Whether this program is to end at this point. The order is used up: whoever gets `true` calls [`die`].
pub fn is_due(point: &str) -> bool {
    static ORDERS: OnceLock<Option<PathBuf>> = OnceLock::new();
    if !cfg!(debug_assertions) {
        return false;
    }
    let orders = ORDERS.get_or_init(|| std::env::var_os(VARIABLE).map(PathBuf::from));
    orders.as_ref().is_some_and(|file| {
        let ordered = std::fs::read_to_string(file).is_ok_and(|order| order.trim() == point);
        // Of several threads that come here together one takes the order.
        ordered && std::fs::remove_file(file).is_ok()
    })
}

/// Ends this program at once, without a word to anybody.
pub fn die() -> ! {
    // It does not return; if it were to, the program ends all the same.
    let _never = raise(Signal::SIGKILL);
    std::process::abort()
}

/// Ends this program if it is to end at this point.
pub fn reach(point: &str) {
    if is_due(point) {
        die();
    }
}
