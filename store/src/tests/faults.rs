//! Faults of device and index: found, named, and never turned into success.
