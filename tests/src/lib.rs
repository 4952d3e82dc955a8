//! Tests of whole clusters.
