//! middleware/mod
