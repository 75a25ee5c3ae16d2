//! Tests of the whole machine, alone and in groups.

mod chaos;
mod garbage;
mod harness;
mod osds;
mod quorum;
mod words;
