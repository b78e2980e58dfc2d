//! testkit/mod
