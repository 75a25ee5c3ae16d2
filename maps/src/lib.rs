//! nacre-maps
