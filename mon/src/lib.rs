//! nacre-mon
