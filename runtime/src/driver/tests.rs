//! Drivers with real files, sockets and databases.

mod directories;
mod store_on_disk;
