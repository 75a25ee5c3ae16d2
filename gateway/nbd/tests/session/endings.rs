//! How connections end: what is in flight is finished, nothing is left behind.

use std::time::Duration;

use nacre_nbd::Config;
use nacre_nbd::protocol::*;
use tokio::io::AsyncWriteExt;

use crate::client::*;
use crate::model::Memory;

const MIB: usize = 1 << 20;

#[test]
fn disconnect_waits_for_what_is_in_flight() {
    run(async {
        let (server, disk) = serve(Memory::new(MIB), Config::default());
        let mut client = Client::attach(&server, Style::Structured).await;
        disk.gate.close();
        let cookie = client.write(0, b"last words").await;
        client.request(CMD_DISC, 0, 0, 0).await;
        // Whatever follows a disconnect is not looked at.
        client.send(b"garbage").await;
        until(|| disk.inside.get() == 1).await;
        disk.gate.open();
        client.expect_done(cookie).await;
        client.expect_end().await;
        assert_eq!(disk.contents()[..10], *b"last words");
    });
}

#[test]
fn a_client_that_closes_its_side_still_gets_its_replies() {
    run(async {
        let (server, disk) = serve(Memory::new(MIB), Config::default());
        let mut client = Client::attach(&server, Style::Structured).await;
        disk.gate.close();
        let cookie = client.write(0, b"half closed").await;
        client.stream.shutdown().await.expect("half a close");
        until(|| disk.inside.get() == 1).await;
        disk.gate.open();
        client.expect_done(cookie).await;
        client.expect_end().await;
    });
}

#[test]
fn a_client_that_vanishes_mid_payload_leaves_nothing_behind() {
    for cut in [0, 1, 27, 28, 29, 4000, 70_000, 199_999] {
        run(async {
            let (server, disk) = serve(Memory::new(MIB), Config::default());
            let mut client = Client::attach(&server, Style::Structured).await;
            disk.gate.close();
            for block in 0..50u64 {
                client.write(block * 4096, &[1; 4096]).await;
            }
            client.request(CMD_READ, 0, 0, MIB as u64).await;
            let request = client.encode(CMD_WRITE, 0, 0, 200_000, &[2; 200_000]).1;
            client.send(&request[..cut]).await;
            until(|| disk.inside.get() == 51).await;
            drop(client);
            settle().await;
            assert_eq!(disk.inside.get(), 51, "requests that were started go on");
            disk.gate.open();
            until(|| server.stats().connections == 0).await;
            assert_eq!((disk.inside.get(), server.stats().requests_in_flight), (0, 0));
            assert!(disk.contents()[..50 * 4096].iter().all(|byte| *byte == 1));
            assert_eq!(server.stats().connections_panicked, 0);
        });
    }
}

#[test]
fn garbage_between_requests_closes_but_what_was_started_is_finished() {
    run(async {
        let (server, disk) = serve(Memory::new(MIB), Config::default());
        let mut client = Client::attach(&server, Style::Structured).await;
        disk.gate.close();
        let cookie = client.write(0, b"before").await;
        client.send(b"GET / HTTP/1.1\r\n\r\n").await;
        until(|| disk.inside.get() == 1).await;
        disk.gate.open();
        client.expect_done(cookie).await;
        client.expect_end().await;
    });
}

#[test]
fn a_payload_too_long_to_skip_closes() {
    run(async {
        let (server, _) = serve(Memory::new(MIB), Config::default());
        for (style, length) in [(Style::Structured, u64::from(u32::MAX)), (Style::Extended, u64::MAX)] {
            let mut client = Client::attach(&server, style).await;
            client.request(CMD_WRITE, 0, 0, length).await;
            client.expect_end().await;
        }
    });
}

#[test]
fn stop_finishes_what_is_in_flight_and_closes() {
    run(async {
        let (server, disk) = serve(Memory::new(MIB), Config::default());
        let mut busy = Client::attach(&server, Style::Structured).await;
        let mut idle = Client::attach(&server, Style::Structured).await;
        let mut shaking = Client::connect(&server).await;
        disk.gate.close();
        let cookie = busy.write(0, b"in flight").await;
        until(|| disk.inside.get() == 1).await;
        let stopping = tokio::task::spawn_local({
            let server = server.clone();
            async move { server.stop().await }
        });
        idle.expect_end().await;
        shaking.expect_end().await;
        assert!(!stopping.is_finished());
        disk.gate.open();
        busy.expect_done(cookie).await;
        busy.expect_end().await;
        stopping.await.expect("stopped");
        Client::raw(&server).expect_end().await;
    });
}

#[test]
fn stop_does_not_wait_for_ever() {
    run(async {
        let config = Config { drain_timeout: Duration::from_millis(20), ..Config::default() };
        let (server, disk) = serve(Memory::new(MIB), config);
        let mut client = Client::attach(&server, Style::Structured).await;
        disk.gate.close();
        client.write(0, b"stuck").await;
        until(|| disk.inside.get() == 1).await;
        server.stop().await;
        client.expect_end().await;
        assert_eq!(disk.inside.get(), 0);
        assert_eq!(server.stats().requests_in_flight, 0);
    });
}

#[test]
fn a_stop_handle_works_from_another_thread() {
    run(async {
        let (server, _) = serve(Memory::new(MIB), Config::default());
        let mut client = Client::attach(&server, Style::Structured).await;
        let handle = server.stop_handle();
        std::thread::spawn(move || handle.stop()).join().expect("the other thread");
        server.stopped().await;
        client.expect_end().await;
    });
}
