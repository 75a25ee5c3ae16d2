//! Golden bytes of requests, the rules of admission, and arbitrary bytes against both.

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

fn limits() -> Limits {
    Limits {
        size: 64 * MIB,
        read_only: false,
        block_sizes: BlockSizes::default(),
        chunked: true,
        extended: false,
        block_status: true,
    }
}

fn header(command: u16, flags: u16, offset: u64, length: u64) -> RequestHeader {
    RequestHeader { flags, command, cookie: 7, offset, length }
}

fn admit(command: u16, flags: u16, offset: u64, length: u64) -> Result<Command, Errno> {
    limits().admit(&header(command, flags, offset, length)).map_err(|failure| failure.errno)
}

#[test]
fn a_compact_request() {
    let bytes = b"\x25\x60\x95\x13\0\x01\0\x01\0\0\0\0\0\0\0\x2a\0\0\0\0\0\x10\0\0\0\0\x10\0";
    let expected = RequestHeader { flags: 1, command: 1, cookie: 42, offset: MIB, length: 4096 };
    assert_eq!(RequestHeader::decode(bytes, false), Ok(Some(expected)));
    assert_eq!(expected.payload_bytes(false), 4096);
    for cut in 0..bytes.len() {
        assert_eq!(RequestHeader::decode(&bytes[..cut], false), Ok(None), "{cut} bytes are no request");
    }
    assert_eq!(RequestHeader::decode(bytes, true), Err(BadMagic(REQUEST_MAGIC)));
}

#[test]
fn an_extended_request() {
    let bytes = b"\x21\xe4\x1c\x71\0\x20\0\x01\0\0\0\0\0\0\0\x2a\0\0\0\0\0\x10\0\0\0\0\0\0\0\0\x10\0";
    let expected = RequestHeader { flags: 0x20, command: 1, cookie: 42, offset: MIB, length: 4096 };
    assert_eq!(RequestHeader::decode(bytes, true), Ok(Some(expected)));
    assert_eq!(expected.payload_bytes(true), 4096);
    assert_eq!(RequestHeader { flags: 0, ..expected }.payload_bytes(true), 0);
    for cut in 0..bytes.len() {
        assert_eq!(RequestHeader::decode(&bytes[..cut], true), Ok(None));
    }
}

#[test]
fn a_bad_magic_is_seen_with_its_fourth_byte() {
    assert_eq!(RequestHeader::decode(b"GET", false), Ok(None));
    assert_eq!(RequestHeader::decode(b"GET ", false), Err(BadMagic(0x4745_5420)));
}

#[test]
fn commands_in_order() {
    let read = Command::Read { offset: 0, length: 4096, dont_fragment: true };
    assert_eq!(admit(CMD_READ, CMD_FLAG_DF, 0, 4096), Ok(read));
    let write = Command::Write { offset: 512, length: 3, fua: true };
    assert_eq!(admit(CMD_WRITE, CMD_FLAG_FUA, 512, 3), Ok(write));
    assert_eq!(admit(CMD_DISC, 0, 0, 0), Ok(Command::Disconnect));
    assert_eq!(admit(CMD_FLUSH, CMD_FLAG_FUA, 0, 0), Ok(Command::Flush));
    let trim = Command::Trim { offset: 0, length: 64 * MIB, fua: false };
    assert_eq!(admit(CMD_TRIM, 0, 0, 64 * MIB), Ok(trim), "longer than a payload, but it has none");
    assert_eq!(admit(CMD_CACHE, 0, 1, 2), Ok(Command::Cache { offset: 1, length: 2 }));
    let zeroes = Command::WriteZeroes { offset: 0, length: 1, no_hole: true, fast: true, fua: true };
    let flags = CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO | CMD_FLAG_FUA;
    assert_eq!(admit(CMD_WRITE_ZEROES, flags, 0, 1), Ok(zeroes));
    let status = Command::BlockStatus { offset: 0, length: 1, one: true };
    assert_eq!(admit(CMD_BLOCK_STATUS, CMD_FLAG_REQ_ONE, 0, 1), Ok(status));
}

#[test]
fn beyond_the_end() {
    let end = 64 * MIB;
    for (command, errno) in [
        (CMD_READ, Errno::Invalid),
        (CMD_TRIM, Errno::Invalid),
        (CMD_CACHE, Errno::Invalid),
        (CMD_BLOCK_STATUS, Errno::Invalid),
        (CMD_WRITE, Errno::NoSpace),
        (CMD_WRITE_ZEROES, Errno::NoSpace),
    ] {
        assert!(admit(command, 0, end - 1, 1).is_ok());
        assert_eq!(admit(command, 0, end, 1), Err(errno));
        assert_eq!(admit(command, 0, end - 1, 2), Err(errno));
        assert_eq!(admit(command, 0, u64::MAX, 1), Err(errno));
        assert_eq!(admit(command, 0, u64::MAX - 1, 4096), Err(errno), "offset and length overflow");
    }
}

#[test]
fn too_long() {
    let longest = u64::from(MAX_PAYLOAD_BYTES);
    assert!(admit(CMD_READ, 0, 0, longest).is_ok());
    assert!(admit(CMD_WRITE, 0, 0, longest).is_ok());
    assert_eq!(admit(CMD_READ, 0, 0, longest + 1), Err(Errno::Overflow));
    assert_eq!(admit(CMD_WRITE, 0, 0, longest + 1), Err(Errno::Invalid));
}

#[test]
fn a_read_only_export() {
    let limits = Limits { read_only: true, ..limits() };
    for command in [CMD_WRITE, CMD_TRIM, CMD_WRITE_ZEROES] {
        let failure = limits.admit(&header(command, 0, 0, 512)).unwrap_err();
        assert_eq!(failure.errno, Errno::Perm);
    }
    assert!(limits.admit(&header(CMD_READ, 0, 0, 512)).is_ok());
    assert!(limits.admit(&header(CMD_FLUSH, 0, 0, 0)).is_ok());
}

#[test]
fn alignment() {
    let block_sizes = BlockSizes { minimum: 512, ..BlockSizes::default() };
    let limits = Limits { block_sizes, ..limits() };
    assert!(limits.admit(&header(CMD_READ, 0, 512, 1024)).is_ok());
    for (offset, length) in [(1, 512), (512, 1), (511, 513)] {
        let failure = limits.admit(&header(CMD_WRITE, 0, offset, length)).unwrap_err();
        assert_eq!(failure.errno, Errno::Invalid);
    }
}

#[test]
fn flags_that_do_not_apply() {
    assert_eq!(admit(CMD_READ, CMD_FLAG_REQ_ONE, 0, 1), Err(Errno::Invalid));
    assert_eq!(admit(CMD_WRITE, CMD_FLAG_DF, 0, 1), Err(Errno::Invalid));
    assert_eq!(admit(CMD_CACHE, 1 << 9, 0, 1), Err(Errno::Invalid));
    assert_eq!(admit(CMD_WRITE, CMD_FLAG_PAYLOAD_LEN, 0, 1), Err(Errno::Invalid), "not negotiated");
    let simple = Limits { chunked: false, ..limits() };
    assert!(simple.admit(&header(CMD_READ, CMD_FLAG_DF, 0, 1)).is_err());
    let extended = Limits { extended: true, ..limits() };
    assert!(extended.admit(&header(CMD_WRITE, CMD_FLAG_PAYLOAD_LEN, 0, 1)).is_ok());
    assert!(extended.admit(&header(CMD_WRITE, 0, 0, 1)).is_err(), "a write needs a payload");
    assert!(
        extended.admit(&header(CMD_BLOCK_STATUS, CMD_FLAG_PAYLOAD_LEN, 0, 12)).is_err(),
        "not advertised"
    );
}

#[test]
fn block_status_needs_a_context() {
    let limits = Limits { block_status: false, ..limits() };
    assert_eq!(limits.admit(&header(CMD_BLOCK_STATUS, 0, 0, 1)).unwrap_err().errno, Errno::Invalid);
    assert_eq!(admit(CMD_BLOCK_STATUS, 0, 0, 0), Err(Errno::Invalid));
}

#[test]
fn unknown_commands() {
    for command in [8, 9, 0x100, u16::MAX] {
        assert_eq!(admit(command, 0, 0, 0), Err(Errno::Invalid));
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), extended: bool) {
        if let Ok(Some(header)) = RequestHeader::decode(&bytes, extended) {
            prop_assert!(bytes.len() >= RequestHeader::bytes(extended));
            let _ = limits().admit(&header);
        }
    }

    /// What is admitted lies within the export and within the bounds of a payload, whatever was asked.
    #[test]
    fn admitted_ranges_are_inside(
        command in 0u16..9,
        flags in 0u16..64,
        offset in prop_oneof![0..65 * MIB, any::<u64>()],
        length in prop_oneof![0..65 * MIB, any::<u64>()],
        extended: bool,
    ) {
        let limits = Limits { extended, ..limits() };
        let Ok(command) = limits.admit(&header(command, flags, offset, length)) else { return Ok(()) };
        let (offset, length) = match command {
            Command::Read { offset, length, .. } | Command::Write { offset, length, .. } => {
                prop_assert!(length <= MAX_PAYLOAD_BYTES);
                (offset, u64::from(length))
            }
            Command::Trim { offset, length, .. }
            | Command::Cache { offset, length }
            | Command::WriteZeroes { offset, length, .. }
            | Command::BlockStatus { offset, length, .. } => (offset, length),
            Command::Disconnect | Command::Flush => return Ok(()),
        };
        prop_assert!(offset.checked_add(length).is_some_and(|end| end <= limits.size));
    }
}
