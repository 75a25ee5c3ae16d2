//! The only place with threads, sockets, files and clocks: what drives the machines of a Nacre daemon.

pub mod clock;
pub mod disk;
pub mod driver;
pub mod kv;
pub mod messenger;
pub mod tls;
