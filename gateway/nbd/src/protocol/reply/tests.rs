//! Golden bytes of replies in the three styles.

use super::*;
use crate::export::ExtentState;

const TO: ReplyTo = ReplyTo { cookie: 0x0102_0304_0506_0708, offset: 0x1000 };
const COOKIE: &[u8] = b"\x01\x02\x03\x04\x05\x06\x07\x08";

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

fn extended(flags_and_type: &[u8], length: u8) -> Vec<u8> {
    let tail = [b"\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\0", &[length][..]].concat();
    [b"\x6e\x8a\x27\x8c", flags_and_type, COOKIE, &tail].concat()
}

#[test]
fn done() {
    let simple = [b"\x67\x44\x66\x98\0\0\0\0", COOKIE].concat();
    assert_eq!(written(|out| ReplyStyle::Simple.done(TO, out)), simple);
    assert_eq!(written(|out| ReplyStyle::Structured.done(TO, out)), simple);
    assert_eq!(written(|out| ReplyStyle::Extended.done(TO, out)), extended(b"\0\x01\0\0", 0));
}

#[test]
fn failure() {
    let failure = Failure::new(Errno::NoSpace, "full");
    let simple = [b"\x67\x44\x66\x98\0\0\0\x1c", COOKIE].concat();
    assert_eq!(written(|out| ReplyStyle::Simple.failure(TO, &failure, out)), simple);
    let body = b"\0\0\0\x1c\0\x04full";
    let structured = [b"\x66\x8e\x33\xef\0\x01\x80\x01", COOKIE, b"\0\0\0\x0a", body].concat();
    assert_eq!(written(|out| ReplyStyle::Structured.failure(TO, &failure, out)), structured);
    let long = [extended(b"\0\x01\x80\x01", 10), body.to_vec()].concat();
    assert_eq!(written(|out| ReplyStyle::Extended.failure(TO, &failure, out)), long);
}

#[test]
fn long_messages_are_cut() {
    let failure = Failure::new(Errno::Io, "é".repeat(2000));
    let out = written(|out| ReplyStyle::Structured.failure(TO, &failure, out));
    assert_eq!(out.len(), 20 + 6 + MAX_MESSAGE_BYTES);
}

#[test]
fn read_chunks() {
    let data = written(|out| ReplyStyle::Structured.read_data(TO, false, 0x2000, 5, out));
    assert_eq!(data, [b"\x66\x8e\x33\xef\0\0\0\x01", COOKIE, b"\0\0\0\x0d\0\0\0\0\0\0\x20\0"].concat());
    let hole = written(|out| ReplyStyle::Structured.read_hole(TO, true, 0x2000, 4096, out));
    let expected =
        [b"\x66\x8e\x33\xef\0\x01\0\x02", COOKIE, b"\0\0\0\x0c\0\0\0\0\0\0\x20\0\0\0\x10\0"].concat();
    assert_eq!(hole, expected);
    let data = written(|out| ReplyStyle::Extended.read_data(TO, true, 0x2000, 5, out));
    assert_eq!(data, [extended(b"\0\x01\0\x01", 13), b"\0\0\0\0\0\0\x20\0".to_vec()].concat());
    let nothing = written(|out| ReplyStyle::Structured.read_nothing(TO, out));
    assert_eq!(nothing, [b"\x66\x8e\x33\xef\0\x01\0\0", COOKIE, b"\0\0\0\0"].concat());
}

#[test]
fn block_status() {
    let extents = [
        Extent { length: 4096, state: ExtentState::Data },
        Extent { length: 8192, state: ExtentState::Hole },
        Extent { length: 512, state: ExtentState::Zero },
    ];
    let structured = written(|out| ReplyStyle::Structured.block_status(TO, &extents, out));
    let body = b"\0\0\0\x01\0\0\x10\0\0\0\0\0\0\0\x20\0\0\0\0\x03\0\0\x02\0\0\0\0\x02";
    assert_eq!(structured, [b"\x66\x8e\x33\xef\0\x01\0\x05", COOKIE, b"\0\0\0\x1c", body].concat());
    let long = written(|out| ReplyStyle::Extended.block_status(TO, &extents[1..2], out));
    let body = b"\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\x20\0\0\0\0\0\0\0\0\x03";
    assert_eq!(long, [extended(b"\0\x01\0\x06", 24), body.to_vec()].concat());
}

#[test]
fn errno_codes() {
    let codes = [
        (Errno::Perm, 1, "EPERM"),
        (Errno::Io, 5, "EIO"),
        (Errno::NoMemory, 12, "ENOMEM"),
        (Errno::Invalid, 22, "EINVAL"),
        (Errno::NoSpace, 28, "ENOSPC"),
        (Errno::Overflow, 75, "EOVERFLOW"),
        (Errno::NotSupported, 95, "ENOTSUP"),
        (Errno::Shutdown, 108, "ESHUTDOWN"),
    ];
    for (errno, code, name) in codes {
        assert_eq!((errno.code(), errno.to_string().as_str()), (code, name));
    }
}
