//! Fuzz targets for everything that decodes bytes from a wire, a disk or a person.
//!
//! ```text
//!   corpus/TARGET/*  ──► tests/corpus.rs          every input, on every test run
//!   seeds            ──► bin/fuzz.rs (libFuzzer)  new inputs by coverage: `cargo xtask fuzz`
//! ```
//!
//! A target takes any bytes. It must not panic, must come to an end, and must hold no more memory at a time than
//! [`Target::memory`] allows for an input of that length. Beyond that each target asserts what its decoder promises: what
//! decodes encodes to bytes that decode to the same, a map that decodes can be used, a refused change changes nothing.

mod input;
pub mod memory;
mod targets;

pub use targets::TARGETS;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// One decoder, or one family of them.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Valid inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Bytes that may be held at a time: so many, and so many for each byte of input.
    pub memory: (usize, usize),
    /// Longest input worth trying.
    pub input_bytes_max: usize,
}

impl Target {
    pub fn find(name: &str) -> Option<&'static Target> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Runs the target over one input. Panics where it breaks a promise.
    pub fn check(&self, input: &[u8]) {
        let held = memory::peak_of(|| (self.run)(input));
        let (base, factor) = self.memory;
        let allowed = base + factor * input.len();
        assert!(
            held <= allowed,
            "{}: an input of {} bytes made it hold {held} bytes, more than {allowed}",
            self.name,
            input.len()
        );
    }
}
