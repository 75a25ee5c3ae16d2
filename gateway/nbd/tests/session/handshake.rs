//! What each option is answered with, and what ends a handshake.

use std::time::Duration;

use nacre_nbd::protocol::*;
use nacre_nbd::{BlockSizes, Config};
use tokio::io::AsyncReadExt;

use crate::client::*;
use crate::model::Memory;

const MIB: usize = 1 << 20;

#[test]
fn export_name_with_and_without_padding() {
    run(async {
        let (server, _) = serve(Memory::new(MIB), Config::default());
        for (flags, bytes) in [(1, 134), (3, 10)] {
            let mut client = Client::raw(&server);
            let mut answer = vec![0; 18 + bytes];
            let option = b"IHAVEOPT\0\0\0\x01\0\0\0\x04disk";
            client.send(&[&[0, 0, 0, flags], &option[..]].concat()).await;
            client.stream.read_exact(&mut answer).await.expect("an answer");
            assert_eq!(answer[18..26], (MIB as u64).to_be_bytes());
            let shown = u16::from_be_bytes([answer[26], answer[27]]);
            assert_eq!(shown & FLAG_SEND_DF, 0, "not without structured replies");
            assert_ne!(shown & FLAG_CAN_MULTI_CONN, 0);
            assert_eq!(client.read(0, 0, 512).await, [0; 512], "the transmission phase follows at once");
        }
    });
}

#[test]
fn export_name_of_an_unknown_export_closes() {
    run(async {
        let (server, _) = serve(Memory::new(MIB), Config::default());
        let mut client = Client::connect(&server).await;
        client.send(b"IHAVEOPT\0\0\0\x01\0\0\0\x04nope").await;
        client.expect_end().await;
    });
}

#[test]
fn list() {
    run(async {
        let (server, _) = serve(Memory::new(MIB), Config::default());
        let mut client = Client::connect(&server).await;
        let replies = client.option(OPT_LIST, &[]).await;
        let entry = [text("disk"), b"a disk in memory".to_vec()].concat();
        assert_eq!(replies, [(REP_SERVER, entry), (REP_ACK, vec![])]);
        assert_eq!(client.expect_error(OPT_LIST, b"x").await.0, REP_ERR_INVALID);
    });
}

#[test]
fn info_then_go() {
    run(async {
        let (server, _) = serve(Memory::new(MIB), Config::default());
        let mut client = Client::connect(&server).await;
        let data = go("disk", &[INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE, 99]);
        let infos = client.option(OPT_INFO, &data).await;
        let kinds: Vec<_> = infos.iter().map(|(kind, data)| (*kind, data.get(1).copied())).collect();
        let info = |kind| (REP_INFO, Some(kind));
        assert_eq!(kinds, [info(0), info(1), info(2), info(3), (REP_ACK, None)]);
        assert_eq!(infos[0].1[2..10], (MIB as u64).to_be_bytes());
        assert_eq!(infos[1].1[2..], *b"disk");
        assert_eq!(infos[3].1[2..], [0, 0, 0, 1, 0, 0, 0x10, 0, 2, 0, 0, 0]);
        let gone = client.option(OPT_GO, &data).await;
        assert_eq!(gone, infos, "GO repeats what INFO said");
        assert_eq!(client.read(0, 0, 512).await, [0; 512]);
    });
}

#[test]
fn refusals_leave_the_handshake_going() {
    run(async {
        let (server, _) = serve(Memory::new(MIB), Config::default());
        let mut client = Client::connect(&server).await;
        let (kind, message) = client.expect_error(OPT_GO, &go("nope", &[])).await;
        assert_eq!(kind, REP_ERR_UNKNOWN);
        assert!(message.contains("nope"), "{message}");
        let (kind, message) = client.expect_error(OPT_GO, &go("forbidden", &[])).await;
        assert_eq!((kind, message.as_str()), (REP_ERR_POLICY, "forbidden is forbidden"));
        assert_eq!(client.expect_error(OPT_GO, &go("", &[])).await.0, REP_ERR_UNKNOWN);
        assert_eq!(client.expect_error(OPT_GO, &go(&"x".repeat(4096), &[])).await.0, REP_ERR_UNKNOWN);
        assert_eq!(client.expect_error(OPT_GO, &go(&"x".repeat(4097), &[])).await.0, REP_ERR_INVALID);
        assert_eq!(client.expect_error(OPT_GO, b"garbage").await.0, REP_ERR_INVALID);
        assert_eq!(client.expect_error(OPT_STARTTLS, &[]).await.0, REP_ERR_UNSUP);
        assert_eq!(client.expect_error(OPT_STARTTLS, b"x").await.0, REP_ERR_INVALID);
        assert_eq!(client.expect_error(77, b"what").await.0, REP_ERR_UNSUP);
        assert_eq!(client.expect_error(OPT_LIST, &vec![0; 40 << 10]).await.0, REP_ERR_TOO_BIG);
        client.expect_ack(OPT_GO, &go("disk", &[])).await;
        assert_eq!(client.read(0, 0, 512).await, [0; 512]);
    });
}

#[test]
fn abort_is_acknowledged() {
    run(async {
        let (server, _) = serve(Memory::new(MIB), Config::default());
        let mut client = Client::connect(&server).await;
        client.expect_ack(OPT_ABORT, b"ignored").await;
        client.expect_end().await;
    });
}

#[test]
fn meta_contexts() {
    run(async {
        let (server, _) = serve(Memory::new(MIB), Config::default());
        let mut client = Client::connect(&server).await;
        let data = |name: &str, queries: &[&str]| {
            let count = (queries.len() as u32).to_be_bytes().to_vec();
            [text(name), count, queries.iter().flat_map(|query| text(query)).collect()].concat()
        };
        let exact = data("disk", &[BASE_ALLOCATION]);
        assert_eq!(client.expect_error(OPT_SET_META_CONTEXT, &exact).await.0, REP_ERR_INVALID);
        client.expect_ack(OPT_STRUCTURED_REPLY, &[]).await;
        let context = |id: u8| (REP_META_CONTEXT, [&[0, 0, 0, id], BASE_ALLOCATION.as_bytes()].concat());
        let ack = (REP_ACK, vec![]);
        for queries in [&[][..], &["base:"], &[BASE_ALLOCATION, "x-y:z"]] {
            let listed = client.option(OPT_LIST_META_CONTEXT, &data("disk", queries)).await;
            assert_eq!(listed, [context(0), ack.clone()]);
        }
        for queries in [&[][..], &["base:"], &["qemu:dirty-bitmap:"]] {
            let set = client.option(OPT_SET_META_CONTEXT, &data("disk", queries)).await;
            assert_eq!(set, std::slice::from_ref(&ack));
        }
        let unknown = client.expect_error(OPT_SET_META_CONTEXT, &data("nope", &[BASE_ALLOCATION])).await;
        assert_eq!(unknown.0, REP_ERR_UNKNOWN);
        assert_eq!(client.option(OPT_SET_META_CONTEXT, &exact).await, [context(1), ack]);
        // A later failure unselects what was selected.
        assert_eq!(client.expect_error(OPT_SET_META_CONTEXT, b"garbage").await.0, REP_ERR_INVALID);
        client.expect_ack(OPT_GO, &go("disk", &[])).await;
        client.request(CMD_BLOCK_STATUS, 0, 0, 4096).await;
        assert_eq!(client.reply(0).await.error, Errno::Invalid.code());
    });
}

#[test]
fn extended_headers_take_precedence() {
    run(async {
        let (server, _) = serve(Memory::new(MIB), Config::default());
        let mut client = Client::connect(&server).await;
        client.expect_ack(OPT_STRUCTURED_REPLY, &[]).await;
        client.expect_ack(OPT_EXTENDED_HEADERS, &[]).await;
        assert_eq!(client.expect_error(OPT_STRUCTURED_REPLY, &[]).await.0, REP_ERR_EXT_HEADER_REQD);
        client.send(b"IHAVEOPT\0\0\0\x01\0\0\0\x04disk").await;
        client.expect_end().await;
    });
}

#[test]
fn an_export_with_large_blocks_wants_them_known() {
    run(async {
        let mut memory = Memory::new(MIB);
        memory.block_sizes = BlockSizes { minimum: 512, ..BlockSizes::default() };
        let (server, _) = serve(memory, Config::default());
        let mut client = Client::connect(&server).await;
        assert_eq!(client.expect_error(OPT_GO, &go("disk", &[])).await.0, REP_ERR_BLOCK_SIZE_REQD);
        client.expect_ack(OPT_GO, &go("disk", &[INFO_BLOCK_SIZE])).await;
        client.request(CMD_READ, 0, 1, 512).await;
        assert_eq!(client.reply(512).await.error, Errno::Invalid.code());
        assert_eq!(client.read(0, 512, 512).await, [0; 512]);
    });
}

#[test]
fn a_read_only_export_says_so() {
    run(async {
        let mut memory = Memory::new(MIB);
        memory.read_only = true;
        let (server, _) = serve(memory, Config::default());
        let mut client = Client::connect(&server).await;
        let replies = client.option(OPT_GO, &go("disk", &[])).await;
        let flags = u16::from_be_bytes([replies[0].1[10], replies[0].1[11]]);
        assert_ne!(flags & FLAG_READ_ONLY, 0);
        assert_eq!(flags & (FLAG_SEND_TRIM | FLAG_SEND_WRITE_ZEROES | FLAG_SEND_FAST_ZERO), 0);
        let cookie = client.write(0, &[1; 512]).await;
        let reply = client.reply(0).await;
        assert_eq!((reply.cookie, reply.error), (cookie, Errno::Perm.code()));
        assert_eq!(client.read(0, 0, 512).await, [0; 512], "the payload of the refused write was skipped");
    });
}

#[test]
fn a_client_that_speaks_something_else_is_closed() {
    run(async {
        let (server, _) = serve(Memory::new(MIB), Config::default());
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[0, 0, 0, 3, b'G', b'E', b'T', b' ', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            let mut client = Client::raw(&server);
            client.send(bytes).await;
            let mut answer = Vec::new();
            client.stream.read_to_end(&mut answer).await.expect("an end");
            assert_eq!(answer.len(), 18, "nothing but the greeting");
        }
        let mut client = Client::connect(&server).await;
        client.send(b"IHAVEOPT\0\0\0\x03\xff\xff\xff\xff").await;
        client.expect_end().await;
    });
}

#[test]
fn endless_options_are_cut() {
    run(async {
        let (server, _) = serve(Memory::new(MIB), Config::default());
        let mut client = Client::connect(&server).await;
        for _ in 0..MAX_OPTIONS {
            client.expect_ack(OPT_STRUCTURED_REPLY, &[]).await;
        }
        client.expect_end().await;
    });
}

#[test]
fn a_client_that_dawdles_is_closed() {
    run(async {
        let config = Config { handshake_timeout: Duration::from_millis(20), ..Config::default() };
        let (server, _) = serve(Memory::new(MIB), config);
        let mut silent = Client::connect(&server).await;
        silent.expect_end().await;
        let mut halfway = Client::connect(&server).await;
        halfway.send(b"IHAVEOPT\0\0\0\x07\0\0\x10\0half").await;
        halfway.expect_end().await;
        assert_eq!(server.stats().connections, 0);
    });
}
