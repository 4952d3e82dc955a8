//! Frameworks to read and run; see the folders beside this one.
