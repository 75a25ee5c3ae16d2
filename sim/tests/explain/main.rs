//! One thing breaks, somebody asks why, and the answer must name that thing and a safe next step: within five seconds of
//! simulated time, with or without a quorum.

mod daemons;
mod lab;
mod links;
mod objects;
mod settings;
