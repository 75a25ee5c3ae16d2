//! nacre-wire
