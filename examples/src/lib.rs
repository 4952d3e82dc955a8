//! Frameworks to read and run.
