//! nacre-osd
