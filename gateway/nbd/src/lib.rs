//! nacre-nbd
