//! Where a replica keeps its records.

pub mod record;
