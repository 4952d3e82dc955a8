//! A whole cluster in one process, for examples and tests.
