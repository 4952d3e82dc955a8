//! Laws and examples of the algebra.
