//! nacre-client
