//! Library for executors, and the executor of plain commands.
