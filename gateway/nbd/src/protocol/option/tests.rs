//! Golden bytes of the client's half of the handshake, and arbitrary bytes against its decoders.

use proptest::prelude::*;

use super::*;

fn text(name: &str) -> Vec<u8> {
    [&(name.len() as u32).to_be_bytes()[..], name.as_bytes()].concat()
}

#[test]
fn client_flags() {
    let both = ClientFlags { fixed_newstyle: true, no_zeroes: true };
    assert_eq!(ClientFlags::decode([0, 0, 0, 3]), Ok(both));
    let old = ClientFlags { fixed_newstyle: false, no_zeroes: false };
    assert_eq!(ClientFlags::decode([0, 0, 0, 0]), Ok(old));
    assert_eq!(ClientFlags::decode([0, 0, 0, 4]), Err(HandshakeError::UnknownFlags(4)));
    assert_eq!(ClientFlags::decode([0x80, 0, 0, 1]), Err(HandshakeError::UnknownFlags(0x8000_0001)));
}

#[test]
fn option_header() {
    let header = OptionHeader::decode(b"IHAVEOPT\0\0\0\x07\0\0\0\x0a");
    assert_eq!(header, Ok(OptionHeader { option: OPT_GO, length: 10 }));
    let header = OptionHeader::decode(b"IHAVEOPX\0\0\0\x07\0\0\0\x0a");
    assert_eq!(header, Err(HandshakeError::BadMagic(0x4948_4156_454f_5058)));
    let header = OptionHeader::decode(b"IHAVEOPT\0\0\0\x01\xff\xff\xff\xff");
    assert_eq!(header, Err(HandshakeError::OptionTooLong { option: 1, length: u32::MAX }));
}

#[test]
fn go_as_a_client_sends_it() {
    let data = b"\0\0\0\x09rbd/vm-01\0\x02\0\x03\0\x01";
    let request = InfoRequest { name: "rbd/vm-01".to_owned(), infos: vec![INFO_BLOCK_SIZE, INFO_NAME] };
    assert_eq!(ClientOption::decode(7, data), Ok(ClientOption::Go(request.clone())));
    assert_eq!(ClientOption::decode(6, data), Ok(ClientOption::Info(request)));
}

#[test]
fn go_with_lengths_that_do_not_add_up() {
    let decode = |data: &[u8]| ClientOption::decode(OPT_GO, data);
    assert_eq!(decode(b""), Err(InvalidOption::Truncated));
    assert_eq!(decode(b"\0\0\0\x01"), Err(InvalidOption::Truncated));
    assert_eq!(decode(b"\0\0\0\x01a\0"), Err(InvalidOption::Truncated));
    assert_eq!(decode(b"\0\0\0\x01a\xff\xff\0\x01"), Err(InvalidOption::Truncated));
    assert_eq!(decode(b"\0\0\0\x01a\0\0zz"), Err(InvalidOption::Trailing(2)));
    assert_eq!(decode(b"\xff\xff\xff\xffa\0\0"), Err(InvalidOption::StringTooLong(u32::MAX as usize)));
    assert_eq!(decode(b"\0\0\0\x02a\0\0\0"), Err(InvalidOption::NotText));
    assert_eq!(decode(b"\0\0\0\x01\xff\0\0"), Err(InvalidOption::NotText));
}

#[test]
fn names_may_be_empty_and_as_long_as_the_protocol_allows() {
    assert_eq!(ClientOption::decode(OPT_EXPORT_NAME, b""), Ok(ClientOption::ExportName(String::new())));
    let longest = "n".repeat(MAX_STRING_BYTES);
    let decoded = ClientOption::decode(OPT_EXPORT_NAME, longest.as_bytes());
    assert_eq!(decoded, Ok(ClientOption::ExportName(longest.clone())));
    let longer = longest + "n";
    let decoded = ClientOption::decode(OPT_EXPORT_NAME, longer.as_bytes());
    assert_eq!(decoded, Err(InvalidOption::StringTooLong(MAX_STRING_BYTES + 1)));
}

#[test]
fn options_without_data_refuse_it_and_abort_ignores_it() {
    for option in [OPT_LIST, OPT_STARTTLS, OPT_STRUCTURED_REPLY, OPT_EXTENDED_HEADERS] {
        assert!(ClientOption::decode(option, b"").is_ok());
        assert_eq!(ClientOption::decode(option, b"x"), Err(InvalidOption::Trailing(1)));
    }
    assert_eq!(ClientOption::decode(OPT_ABORT, b"bye"), Ok(ClientOption::Abort));
    assert_eq!(ClientOption::decode(0x4e42, b"anything"), Ok(ClientOption::Unknown(0x4e42)));
}

#[test]
fn meta_context_queries() {
    let request = |queries: &[&str]| {
        let count = (queries.len() as u32).to_be_bytes().to_vec();
        let data = [text("disk"), count, queries.iter().flat_map(|query| text(query)).collect()].concat();
        match ClientOption::decode(OPT_SET_META_CONTEXT, &data) {
            Ok(ClientOption::SetMetaContext(request)) => request,
            other => panic!("{other:?}"),
        }
    };
    let none = request(&[]);
    assert_eq!(none.name, "disk");
    assert!(none.lists_allocation() && !none.sets_allocation());
    let wildcard = request(&["base:"]);
    assert!(wildcard.lists_allocation() && !wildcard.sets_allocation());
    let exact = request(&["qemu:dirty-bitmap:x", "base:allocation"]);
    assert!(exact.lists_allocation() && exact.sets_allocation());
    let other = request(&["qemu:", "base:other"]);
    assert!(!other.lists_allocation() && !other.sets_allocation());
}

#[test]
fn a_count_of_queries_without_queries_costs_nothing() {
    let data = [text("disk"), u32::MAX.to_be_bytes().to_vec()].concat();
    assert_eq!(ClientOption::decode(OPT_LIST_META_CONTEXT, &data), Err(InvalidOption::Truncated));
}

proptest! {
    /// Whatever is decoded was in the data: nothing is made up and nothing panics.
    #[test]
    fn arbitrary_data_never_panics(option in 0u32..16, data in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(ClientOption::Go(request) | ClientOption::Info(request)) = ClientOption::decode(option, &data) {
            prop_assert_eq!(data.len(), 4 + request.name.len() + 2 + 2 * request.infos.len());
        }
    }

    #[test]
    fn info_requests_survive_the_trip(name in "[^\0]{0,40}", infos in proptest::collection::vec(any::<u16>(), 0..20)) {
        let mut data = text(&name);
        data.extend((infos.len() as u16).to_be_bytes());
        data.extend(infos.iter().flat_map(|info| info.to_be_bytes()));
        prop_assert_eq!(ClientOption::decode(OPT_GO, &data), Ok(ClientOption::Go(InfoRequest { name, infos })));
    }

    #[test]
    fn meta_context_data_cut_anywhere_is_refused(cut in 0usize..38) {
        let data = [text("disk"), 2u32.to_be_bytes().to_vec(), text("base:allocation"), text("qemu:x")].concat();
        prop_assert!(cut < data.len());
        prop_assert_eq!(ClientOption::decode(OPT_SET_META_CONTEXT, &data[..cut]), Err(InvalidOption::Truncated));
    }
}
