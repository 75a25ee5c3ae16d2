//! Every command in every style, concurrency, and what failures look like.

use std::collections::BTreeSet;

use nacre_nbd::Config;
use nacre_nbd::protocol::*;

use crate::client::*;
use crate::model::{Memory, broken};

const MIB: usize = 1 << 20;
const STYLES: [Style; 3] = [Style::Simple, Style::Structured, Style::Extended];

#[test]
fn every_command_in_every_style() {
    for style in STYLES {
        run(async {
            let (server, disk) = serve(Memory::new(MIB), Config::default());
            let mut client = Client::attach(&server, style).await;
            let pattern: Vec<u8> = (0..20_000u32).map(|at| at as u8).collect();
            let cookie = client.write(5000, &pattern).await;
            client.expect_done(cookie).await;
            assert_eq!(client.read(0, 5000, pattern.len()).await, pattern);
            let (cookie, bytes) = client.encode(CMD_WRITE, CMD_FLAG_FUA, 0, 3, b"fua");
            client.send(&bytes).await;
            client.expect_done(cookie).await;
            assert!(disk.fua_seen.get());
            let cookie = client.request(CMD_FLUSH, 0, 0, 0).await;
            client.expect_done(cookie).await;
            assert_eq!(disk.flushes.get(), 1);
            let cookie = client.request(CMD_WRITE_ZEROES, CMD_FLAG_FAST_ZERO, 8192, 8192).await;
            client.expect_done(cookie).await;
            let cookie = client.request(CMD_WRITE_ZEROES, CMD_FLAG_NO_HOLE, 6000, 10).await;
            client.expect_done(cookie).await;
            let cookie = client.request(CMD_TRIM, 0, 16384, 4096).await;
            client.expect_done(cookie).await;
            let cookie = client.request(CMD_CACHE, 0, 0, MIB as u64).await;
            client.expect_done(cookie).await;
            assert_eq!(client.read(0, 0, 64 << 10).await, disk.contents()[..64 << 10], "{style:?}");
            assert_eq!(client.read(0, 0, MIB).await, disk.contents());
            client.request(CMD_DISC, 0, 0, 0).await;
            client.expect_end().await;
        });
    }
}

#[test]
fn block_status_tells_the_holes() {
    for style in [Style::Structured, Style::Extended] {
        run(async {
            let (server, disk) = serve(Memory::new(MIB), Config::default());
            disk.fill(8192, &[1; 4096]);
            let mut client = Client::attach(&server, style).await;
            client.request(CMD_BLOCK_STATUS, 0, 0, MIB as u64).await;
            let extents = client.reply(0).await.extents();
            assert_eq!(extents, [(8192, 3), (4096, 0), (MIB as u64 - 12288, 3)]);
            client.request(CMD_BLOCK_STATUS, CMD_FLAG_REQ_ONE, 8192, 100_000).await;
            assert_eq!(client.reply(0).await.extents(), [(4096, 0)]);
            client.request(CMD_BLOCK_STATUS, CMD_FLAG_REQ_ONE, 8192, 100).await;
            assert_eq!(client.reply(0).await.extents(), [(100, 0)], "not beyond what was asked");
        });
    }
}

#[test]
fn block_status_of_a_shredded_disk_is_bounded() {
    run(async {
        let (server, disk) = serve(Memory::new(64 * MIB), Config::default());
        for block in (0..16 * 1024).step_by(2) {
            disk.fill(block * 4096, &[1; 4096]);
        }
        let mut client = Client::attach(&server, Style::Structured).await;
        client.request(CMD_BLOCK_STATUS, 0, 0, 64 << 20).await;
        let extents = client.reply(0).await.extents();
        assert_eq!(extents.len(), MAX_EXTENTS);
        assert!(
            extents.iter().enumerate().all(|(at, extent)| *extent == (4096, if at % 2 == 0 { 0 } else { 3 }))
        );
    });
}

#[test]
fn holes_do_not_cross_the_wire_unless_the_client_wants_one_piece() {
    run(async {
        let (server, disk) = serve(Memory::new(MIB), Config::default());
        disk.fill(65536, &[9; 4096]);
        let mut client = Client::attach(&server, Style::Structured).await;
        client.request(CMD_READ, 0, 0, MIB as u64).await;
        let reply = client.reply(0).await;
        let kinds: Vec<_> = reply.chunks.iter().map(|(kind, payload)| (*kind, payload.len())).collect();
        assert_eq!(kinds, [(2, 12), (1, 8 + 4096), (2, 12)]);
        assert_eq!(reply.data(0, MIB), disk.contents());
        client.request(CMD_READ, CMD_FLAG_DF, 0, MIB as u64).await;
        let reply = client.reply(0).await;
        assert_eq!(reply.chunks.len(), 1);
        assert_eq!(reply.data(0, MIB), disk.contents());
    });
}

#[test]
fn requests_of_no_length_are_done_at_once() {
    for style in STYLES {
        run(async {
            let (server, _) = serve(Memory::new(MIB), Config::default());
            let mut client = Client::attach(&server, style).await;
            for command in [CMD_READ, CMD_WRITE, CMD_TRIM, CMD_CACHE, CMD_WRITE_ZEROES] {
                let cookie = client.request(command, 0, 4096, 0).await;
                client.expect_done(cookie).await;
            }
            assert_eq!(client.read(0, 0, 512).await, [0; 512]);
        });
    }
}

#[test]
fn failures_of_the_export_reach_the_client() {
    for style in STYLES {
        run(async {
            let (server, disk) = serve(Memory::new(MIB), Config::default());
            let mut client = Client::attach(&server, style).await;
            disk.failure.replace(Some(broken()));
            for command in [CMD_READ, CMD_FLUSH, CMD_TRIM, CMD_WRITE_ZEROES] {
                let cookie = client.request(command, 0, 0, 4096).await;
                let reply = client.reply(4096).await;
                assert_eq!((reply.cookie, reply.error), (cookie, Errno::Io.code()));
                if style != Style::Simple {
                    assert_eq!(reply.chunks[0].1[6..], *b"the disk is broken");
                }
            }
            client.write(0, &[1; 4096]).await;
            assert_eq!(client.reply(0).await.error, Errno::Io.code());
            disk.failure.replace(None);
            assert_eq!(client.read(0, 0, 4096).await, [0; 4096], "the connection goes on");
            assert_eq!(server.stats().failures, 5);
        });
    }
}

#[test]
fn requests_out_of_order_are_refused_and_their_payload_skipped() {
    for style in STYLES {
        run(async {
            let (server, disk) = serve(Memory::new(MIB), Config::default());
            let mut client = Client::attach(&server, style).await;
            let end = MIB as u64;
            for (command, offset, length, errno) in [
                (CMD_READ, end, 1, Errno::Invalid),
                (CMD_READ, 0, u64::from(u32::MAX), Errno::Invalid),
                (CMD_READ, u64::MAX, 4096, Errno::Invalid),
                (CMD_TRIM, end - 1, 2, Errno::Invalid),
                (CMD_WRITE_ZEROES, end - 1, 2, Errno::NoSpace),
                (200, 0, 0, Errno::Invalid),
            ] {
                let cookie = client.request(command, 0, offset, length).await;
                let reply = client.reply(0).await;
                assert_eq!(
                    (reply.cookie, reply.error),
                    (cookie, errno.code()),
                    "{command} {offset} {length}"
                );
            }
            let cookie = client.write(end - 100, &[1; 101]).await;
            let reply = client.reply(0).await;
            assert_eq!((reply.cookie, reply.error), (cookie, Errno::NoSpace.code()));
            assert_eq!(client.read(0, 0, MIB).await, vec![0; MIB]);
            assert!(disk.contents().iter().all(|byte| *byte == 0));
        });
    }
}

#[test]
fn a_write_above_the_maximum_is_skipped() {
    run(async {
        let (server, disk) = serve(Memory::new(64 * MIB), Config::default());
        let mut client = Client::attach(&server, Style::Structured).await;
        let cookie = client.write(0, &vec![1; 33 * MIB]).await;
        let reply = client.reply(0).await;
        assert_eq!((reply.cookie, reply.error), (cookie, Errno::Invalid.code()));
        assert_eq!(disk.payload_peak.get(), 0);
        let largest = vec![2; 32 * MIB];
        let cookie = client.write(0, &largest).await;
        client.expect_done(cookie).await;
        assert_eq!(client.read(0, 0, 32 * MIB).await, largest);
    });
}

#[test]
fn hundreds_in_flight_complete_in_any_order() {
    run(async {
        let (server, disk) = serve(Memory::new(64 * MIB), Config::default());
        let mut client = Client::attach(&server, Style::Structured).await;
        disk.gate.close();
        let mut cookies = BTreeSet::new();
        for block in 0..800u64 {
            cookies.insert(client.write(block * 4096, &[block as u8; 4096]).await);
        }
        until(|| disk.inside.get() == 800).await;
        assert_eq!(server.stats().requests_in_flight, 800);
        // One that does not wait overtakes the others.
        let cookie = client.request(CMD_CACHE, 0, 0, 1).await;
        client.expect_done(cookie).await;
        disk.gate.open();
        while !cookies.is_empty() {
            let reply = client.reply(0).await;
            assert!(cookies.remove(&reply.cookie) && reply.error == 0);
        }
        let contents = disk.contents();
        assert!(
            (0..800usize)
                .all(|block| { contents[block * 4096..][..4096].iter().all(|byte| *byte == block as u8) })
        );
        assert_eq!(server.stats().requests_in_flight, 0);
    });
}

#[test]
fn a_flush_covers_other_connections() {
    run(async {
        let (server, disk) = serve(Memory::new(MIB), Config::default());
        let mut one = Client::attach(&server, Style::Structured).await;
        let mut two = Client::attach(&server, Style::Simple).await;
        let cookie = one.write(0, b"shared").await;
        one.expect_done(cookie).await;
        let cookie = two.request(CMD_FLUSH, 0, 0, 0).await;
        two.expect_done(cookie).await;
        assert_eq!(disk.flushes.get(), 1);
        assert_eq!(two.read(0, 0, 6).await, b"shared");
        assert_eq!(server.stats().connections, 2);
    });
}
