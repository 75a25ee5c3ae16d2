//! Two or more messengers on loopback, in one thread.

mod faults;
mod kit;
mod traffic;
