//! Frameworks to read and run; see the folders beside this one.

// The code in the README is compiled with the tests.
#![cfg_attr(doctest, doc = include_str!("../../README.md"))]
