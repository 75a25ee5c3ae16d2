//! Whole clusters of OSD machines in one thread: kills, restarts, cuts, loss, from a seed, with checkers.

mod client;
mod faults;
mod mem_store;
mod mon;
mod peering;
mod requests;
mod service;
mod settings;
mod space;
mod world;
