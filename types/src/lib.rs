//! nacre-types
