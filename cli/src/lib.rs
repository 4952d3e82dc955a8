//! The meseta command.
