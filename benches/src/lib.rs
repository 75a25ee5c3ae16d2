//! nacre-benches
