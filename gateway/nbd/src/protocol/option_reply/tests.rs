//! Golden bytes of the server's half of the handshake.

use super::*;

fn reply(option: u32, write: impl FnOnce(&mut OptionReply<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut OptionReply { option, out: &mut out });
    out
}

const MAGIC: &[u8] = b"\0\x03\xe8\x89\x04\x55\x65\xa9";

#[test]
fn the_greeting() {
    assert_eq!(&greeting(), b"NBDMAGICIHAVEOPT\0\x03");
}

#[test]
fn ack_and_error() {
    assert_eq!(reply(OPT_GO, |reply| reply.ack()), [MAGIC, b"\0\0\0\x07\0\0\0\x01\0\0\0\0"].concat());
    let unknown = reply(OPT_INFO, |reply| reply.error(REP_ERR_UNKNOWN, "no such disk"));
    assert_eq!(unknown, [MAGIC, b"\0\0\0\x06\x80\0\0\x06\0\0\0\x0cno such disk"].concat());
}

#[test]
fn a_list_entry() {
    let entry = reply(OPT_LIST, |reply| reply.server("rbd/a", "10 GiB"));
    assert_eq!(entry, [MAGIC, b"\0\0\0\x03\0\0\0\x02\0\0\0\x0f\0\0\0\x05rbd/a10 GiB"].concat());
}

#[test]
fn infos() {
    let export = reply(OPT_GO, |reply| reply.info_export(1 << 30, 0x0101));
    assert_eq!(export, [MAGIC, b"\0\0\0\x07\0\0\0\x03\0\0\0\x0c\0\0\0\0\0\0\x40\0\0\0\x01\x01"].concat());
    let name = reply(OPT_GO, |reply| reply.info_name("a"));
    assert_eq!(name, [MAGIC, b"\0\0\0\x07\0\0\0\x03\0\0\0\x03\0\x01a"].concat());
    let description = reply(OPT_GO, |reply| reply.info_description("b"));
    assert_eq!(description, [MAGIC, b"\0\0\0\x07\0\0\0\x03\0\0\0\x03\0\x02b"].concat());
    let sizes = reply(OPT_GO, |reply| reply.info_block_size(BlockSizes::default()));
    let expected = b"\0\0\0\x07\0\0\0\x03\0\0\0\x0e\0\x03\0\0\0\x01\0\0\x10\0\x02\0\0\0";
    assert_eq!(sizes, [MAGIC, expected].concat());
}

#[test]
fn a_meta_context() {
    let context = reply(OPT_SET_META_CONTEXT, |reply| reply.meta_context(1, BASE_ALLOCATION));
    assert_eq!(context, [MAGIC, b"\0\0\0\x0a\0\0\0\x04\0\0\0\x13\0\0\0\x01base:allocation"].concat());
}

#[test]
fn the_end_of_export_name_with_and_without_padding() {
    let mut out = Vec::new();
    export_name(4096, 0x0d, true, &mut out);
    assert_eq!(out, b"\0\0\0\0\0\0\x10\0\0\x0d");
    export_name(4096, 0x0d, false, &mut out);
    assert_eq!(out.len(), 10 + 134);
    assert!(out[20..].iter().all(|byte| *byte == 0));
}

#[test]
fn messages_are_cut_at_a_character() {
    let long = "é".repeat(4000);
    assert_eq!(clip(&long).len(), MAX_STRING_BYTES);
    let odd = format!("x{long}");
    assert_eq!(clip(&odd).len(), MAX_STRING_BYTES - 1);
    assert_eq!(clip("short"), "short");
}
