//! nacre-runtime
