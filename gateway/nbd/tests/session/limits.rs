//! Memory stays within its bounds, whatever clients do, and nobody starves for another's sake.

use std::time::Duration;

use nacre_nbd::protocol::*;
use nacre_nbd::{Config, ConfigError, Server};
use tokio::io::AsyncWriteExt;

use crate::client::*;
use crate::model::{Disks, Memory};

const MIB: usize = 1 << 20;

#[test]
fn an_impossible_configuration_is_refused() {
    let config = Config { connection_bytes_max: MIB, ..Config::default() };
    let error = Server::new(std::rc::Rc::new(Disks::default()), config).err();
    assert!(matches!(error, Some(ConfigError::TooSmall { name: "connection_bytes_max", .. })));
}

#[test]
fn requests_in_flight_are_bounded() {
    run(async {
        let config = Config { connection_requests_max: 100, ..Config::default() };
        let (server, disk) = serve(Memory::new(MIB), config);
        let mut client = Client::attach(&server, Style::Structured).await;
        disk.gate.close();
        let requests: Vec<u8> = (0..1000).flat_map(|_| client.encode(CMD_FLUSH, 0, 0, 0, &[]).1).collect();
        client.send(&requests).await;
        until(|| disk.inside.get() == 100).await;
        settle().await;
        assert_eq!(disk.inside.get(), 100);
        disk.gate.open();
        for _ in 0..1000 {
            assert_eq!(client.reply(0).await.error, 0);
        }
        assert_eq!((disk.inside_peak.get(), disk.flushes.get()), (100, 1000));
    });
}

#[test]
fn payload_bytes_in_flight_are_bounded() {
    for size in [4096, 30_000, 100_000, 3 * MIB] {
        run(async {
            let budget = 40 * MIB;
            let config = Config {
                connection_bytes_max: budget,
                connection_requests_max: 1 << 20,
                ..Config::default()
            };
            let (server, disk) = serve(Memory::new(4 * MIB), config);
            let client = Client::attach(&server, Style::Structured).await;
            disk.gate.close();
            let count = 2 * budget / size;
            let request = client.encode(CMD_WRITE, 0, 0, size as u64, &vec![7; size]).1;
            let Client { stream, .. } = client;
            let (mut reading, mut writing) = tokio::io::split(stream);
            let sender = tokio::task::spawn_local(async move {
                for _ in 0..count {
                    writing.write_all(&request).await.expect("the server reads on");
                }
                writing
            });
            settle().await;
            let full = disk.payload.get();
            assert!(full <= budget, "{full} bytes of {size}");
            assert!(full > budget / 2, "{full} bytes of {size}: the budget is there to be used");
            disk.gate.open();
            let mut replies = vec![0; 16 * count];
            tokio::io::AsyncReadExt::read_exact(&mut reading, &mut replies).await.expect("all are answered");
            assert!(disk.payload_peak.get() <= budget);
            drop(sender.await.expect("the sender"));
        });
    }
}

#[test]
fn a_client_that_does_not_read_stops_the_server_from_reading() {
    run(async {
        let (server, disk) =
            serve(Memory::new(64 * MIB), Config { connection_bytes_max: 40 * MIB, ..Config::default() });
        disk.fill(0, &vec![5; MIB]);
        let mut client = Client::attach(&server, Style::Structured).await;
        let requests: Vec<u8> =
            (0..200).flat_map(|_| client.encode(CMD_READ, 0, 0, MIB as u64, &[]).1).collect();
        client.send(&requests).await;
        until(|| server.stats().reads >= 39).await;
        settle().await;
        assert_eq!(server.stats().reads, 39, "40 MiB less the requests' own");
        for _ in 0..200 {
            let reply = client.reply(0).await;
            assert_eq!((reply.error, reply.data(0, MIB).len()), (0, MIB));
        }
    });
}

#[test]
fn replies_to_nonsense_are_bounded_as_well() {
    run(async {
        let (server, _) = serve(Memory::new(MIB), Config::default());
        let client = Client::attach(&server, Style::Structured).await;
        let request = client.encode(99, 0, 0, 0, &[]).1;
        let Client { stream, .. } = client;
        let (mut reading, mut writing) = tokio::io::split(stream);
        let sender = tokio::task::spawn_local(async move {
            for _ in 0..20_000 {
                writing.write_all(&request).await.expect("the server reads on");
            }
            writing
        });
        settle().await;
        let stuck = server.stats().others;
        assert!(stuck < 5_000, "{stuck} replies to a client that reads none");
        let reply_bytes = 20 + 6 + "unknown command 99".len();
        let mut replies = vec![0; reply_bytes * 20_000];
        tokio::io::AsyncReadExt::read_exact(&mut reading, &mut replies).await.expect("all are answered");
        drop(sender.await.expect("the sender"));
        assert_eq!(server.stats().failures, 20_000);
    });
}

#[test]
fn connections_share_the_servers_budget() {
    run(async {
        let config =
            Config { connection_bytes_max: 40 * MIB, server_bytes_max: 40 * MIB, ..Config::default() };
        let (server, disk) = serve(Memory::new(64 * MIB), config);
        disk.gate.close();
        let mut one = Client::attach(&server, Style::Structured).await;
        let mut two = Client::attach(&server, Style::Structured).await;
        one.request(CMD_READ, 0, 0, 30 << 20).await;
        until(|| disk.inside.get() == 1).await;
        two.request(CMD_READ, 0, 0, 30 << 20).await;
        settle().await;
        assert_eq!(disk.inside.get(), 1, "the second waits for the first");
        disk.gate.open();
        assert_eq!(one.reply(0).await.error, 0);
        assert_eq!(two.reply(0).await.error, 0);
    });
}

#[test]
fn a_stalled_client_yields_to_those_who_wait() {
    run(async {
        let config = Config {
            connection_bytes_max: 40 * MIB,
            server_bytes_max: 40 * MIB,
            stall_timeout: Duration::from_millis(10),
            ..Config::default()
        };
        let (server, disk) = serve(Memory::new(64 * MIB), config);
        disk.fill(0, &vec![1; 30 * MIB]);
        // One begins a write and leaves it at that, one does not take what it asked for.
        let mut writer = Client::attach(&server, Style::Structured).await;
        let request = writer.encode(CMD_WRITE, 0, 0, 30 << 20, b"and then nothing").1;
        writer.send(&request).await;
        let mut other = Client::attach(&server, Style::Structured).await;
        assert_eq!(other.read(0, 0, 30 * MIB).await.len(), 30 * MIB);
        writer.expect_end().await;
        let mut reader = Client::attach(&server, Style::Structured).await;
        reader.request(CMD_READ, 0, 0, 30 << 20).await;
        until(|| server.stats().reads == 2).await;
        assert_eq!(other.read(0, 0, 30 * MIB).await.len(), 30 * MIB);
        assert_eq!(server.stats().connections, 1);
    });
}

#[test]
fn a_client_that_pauses_alone_is_left_in_peace() {
    run(async {
        let config = Config { stall_timeout: Duration::from_millis(5), ..Config::default() };
        let (server, _) = serve(Memory::new(MIB), config);
        let mut client = Client::attach(&server, Style::Structured).await;
        let (cookie, request) = client.encode(CMD_WRITE, 0, 0, 8192, &[3; 8192]);
        client.send(&request[..5000]).await;
        // Time is the subject here: several stall timeouts pass.
        tokio::time::sleep(Duration::from_millis(50)).await;
        client.send(&request[5000..]).await;
        client.expect_done(cookie).await;
        assert_eq!(client.read(0, 0, 8192).await, [3; 8192]);
    });
}

#[test]
fn connections_are_bounded() {
    run(async {
        let (server, _) = serve(Memory::new(MIB), Config { connections_max: 2, ..Config::default() });
        let one = Client::attach(&server, Style::Simple).await;
        let _two = Client::attach(&server, Style::Simple).await;
        Client::raw(&server).expect_end().await;
        assert_eq!(server.stats().connections_refused, 1);
        drop(one);
        until(|| server.stats().connections == 1).await;
        Client::attach(&server, Style::Simple).await;
    });
}
