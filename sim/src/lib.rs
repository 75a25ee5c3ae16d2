//! nacre-sim
