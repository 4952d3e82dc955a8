//! The types every component of a Meseta cluster speaks.
