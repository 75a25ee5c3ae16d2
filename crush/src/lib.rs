//! nacre-crush
