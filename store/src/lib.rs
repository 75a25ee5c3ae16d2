//! nacre-store
