//! Drivers with real files, sockets and databases.

mod directories;
mod monitor;
mod store_on_disk;
