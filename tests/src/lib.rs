//! nacre-tests
