//! What works: order, volume, sizes, back-pressure, choice of monitor, a clean end.

use super::kit::*;
use crate::messenger::{Messenger, MessengerConfig, MessengerEvent};
use bytes::Bytes;
use nacre_types::EntityName;
use nacre_wire::Address;

#[test]
fn every_lane_keeps_its_order() {
    run(async {
        let cluster = Cluster::new("f");
        let (server, client) = (cluster.bind("osd.3"), cluster.bind("client.x"));
        for seq in 0..400 {
            let size = [0, 100, 5000, 40_000][(seq / 4 % 4) as usize];
            client.send(osd(3, &server), packet((seq % 4) as usize, seq, vec![seq as u8; size].into()));
        }
        let mut last = [None; 4];
        let work = async {
            for _ in 0..400 {
                let (from, got) = received(&client).await;
                assert_eq!(from.entity, "osd.3".parse::<EntityName>().unwrap());
                let lane = got.lane().index();
                assert!(last[lane] < Some(got.request.seq), "lane {lane}");
                last[lane] = Some(got.request.seq);
                assert!(got.data.bytes.iter().all(|&b| b == got.request.seq as u8));
                got.data.verify(0).unwrap();
            }
        };
        tokio::select! { () = work => {}, _ = echo(&server) => {} }
        assert_eq!(last, [Some(396), Some(397), Some(398), Some(399)]);
        assert_eq!(client.stats().send_queue_bytes, 0);
        assert_eq!((client.stats().sessions, server.stats().sessions), (1, 1));
    });
}

#[test]
fn ten_thousand_small_frames() {
    run(async {
        let cluster = Cluster::new("f");
        let (server, client) = (cluster.bind("osd.0"), cluster.bind("client.x"));
        for seq in 0..10_000 {
            client.send(osd(0, &server), ping(seq));
        }
        for seq in 0..10_000 {
            assert_eq!(received(&server).await.1.request.seq, seq);
        }
        assert_eq!(server.stats().frames_received, 10_000);
    });
}

#[test]
fn a_payload_of_the_largest_size() {
    run(async {
        let cluster = Cluster::new("f");
        let (server, client) = (cluster.bind("osd.0"), cluster.bind("client.x"));
        let payload: Bytes = (0..32 << 20).map(|i: u32| (i / 4096) as u8).collect();
        client.send(osd(0, &server), packet(1, 7, payload.clone()));
        // Control overtakes it.
        client.send(osd(0, &server), ping(8));
        assert_eq!(received(&server).await.1.request.seq, 8);
        let (_, got) = received(&server).await;
        assert!(got.data.bytes == payload);
        got.data.verify(0).unwrap();
    });
}

#[test]
fn ipv6_works_too() {
    run(async {
        let cluster = Cluster::new("f");
        let listen = Some("[::1]:0".parse().unwrap());
        // Machines without IPv6 have nothing to test here.
        let Ok(server) = Messenger::bind(MessengerConfig { listen, ..cluster.config("osd.0") }) else {
            return;
        };
        let mut config = cluster.config("client.x");
        config.credentials.monitors = vec![mon("a", &server)];
        let client = Messenger::bind(config).unwrap();
        client.send(osd(0, &server), packet(1, 1, vec![1; 100_000].into()));
        assert_eq!(received(&server).await.1.data.bytes.len(), 100_000);
    });
}

#[test]
fn packets_grow_where_the_path_is_not_known() {
    run(async {
        // This machine's address towards elsewhere; connecting a UDP socket sends nothing.
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let Ok(address) = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()) else { return };
        let cluster = Cluster::new("f");
        let listen = Some((address.ip(), 0).into());
        let server = Messenger::bind(MessengerConfig { listen, ..cluster.config("osd.0") }).unwrap();
        let client = cluster.bind("client.x");
        let mtu = || {
            let sessions = client.inner.sessions.borrow();
            let connection = sessions.values().next().unwrap().connection();
            connection.map_or(0, |c| c.stats().path.current_mtu)
        };
        let mut seq = 0;
        // Discovery probes as long as there is traffic.
        while seq == 0 || (mtu() < 6000 && seq < 2000) {
            client.send(osd(0, &server), packet(1, seq, vec![1; 20_000].into()));
            assert_eq!(received(&server).await.1.request.seq, seq);
            seq += 1;
        }
        assert!(mtu() >= 6000, "{}", mtu());
    });
}

#[test]
fn a_slow_reader_bounds_memory_and_is_given_up() {
    run(async {
        let cluster = Cluster::new("f");
        let server = Messenger::bind(MessengerConfig { inbox_bytes_max: 1 << 20, ..cluster.config("osd.0") });
        let server = server.unwrap();
        let client = MessengerConfig { send_queue_bytes_max: 8 << 20, ..cluster.config("client.x") };
        let client = Messenger::bind(client).unwrap();
        let payload = Bytes::from(vec![0; 64 << 10]);
        let mut sent = 0;
        client.send(osd(0, &server), ping(0));
        loop {
            match client.try_event() {
                Some(MessengerEvent::SessionClosed { .. }) => break,
                Some(_) => {}
                None => {
                    let session = nacre_wire::SessionId(1);
                    client.send(Address::Session(session), packet(2, 1, payload.clone()));
                    sent += payload.len();
                    tokio::task::yield_now().await;
                }
            }
            assert!(server.stats().inbox_bytes < 2 << 20);
            assert!(sent < 64 << 20, "nothing pushes back");
        }
        // The session is over, and the next one works: the reader reads again.
        client.send(osd(0, &server), ping(42));
        while !matches!(
            server.next_event().await,
            MessengerEvent::Received { packet, .. } if packet.request.seq == 42
        ) {}
    });
}

#[test]
fn a_reader_that_catches_up_loses_nothing() {
    run(async {
        let cluster = Cluster::new("f");
        let server = Messenger::bind(MessengerConfig { inbox_bytes_max: 1 << 20, ..cluster.config("osd.0") });
        let (server, client) = (server.unwrap(), cluster.bind("client.x"));
        for seq in 0..500 {
            client.send(osd(0, &server), packet(2, seq, vec![3; 64 << 10].into()));
        }
        // Let it fill up before anything is read.
        while server.stats().inbox_bytes < 1 << 20 {
            tokio::task::yield_now().await;
        }
        for seq in 0..500 {
            assert_eq!(received(&server).await.1.request.seq, seq);
            assert!(server.stats().inbox_bytes < 2 << 20);
        }
    });
}

#[test]
fn any_monitor_that_lives_will_do() {
    run(async {
        let cluster = Cluster::new("f");
        let (gone, alive) = (cluster.bind("mon.a"), cluster.bind("mon.b"));
        let client = cluster.bind("client.x");
        let names = |m: crate::tls::MonAddress| (m.name, m.address);
        client.send(Address::AnyMon, ping(0));
        assert_eq!(failure(&client).await.0, Address::AnyMon);
        client.set_monitors(vec![names(mon("a", &gone)), names(mon("b", &alive))]);
        gone.shutdown().await;
        drop(gone);
        client.send(Address::AnyMon, ping(1));
        client.send(Address::AnyMon, ping(2));
        assert_eq!(received(&alive).await.1.request.seq, 1);
        let (peer, second) = received(&alive).await;
        assert_eq!(second.request.seq, 2);
        alive.send(Address::Session(peer.session), ping(3));
        assert_eq!(received(&client).await.0.entity, EntityName::Mon("b".into()));
        alive.shutdown().await;
        closed(&client).await;
        drop(alive);
        client.send(Address::AnyMon, ping(4));
        let (address, refused, reason) = failure(&client).await;
        assert_eq!((address, refused), (Address::AnyMon, true));
        assert!(reason.contains("mon.a") && reason.contains("mon.b"), "{reason}");
    });
}

#[test]
fn shutdown_sends_what_is_queued() {
    run(async {
        let cluster = Cluster::new("f");
        let (server, client) = (cluster.bind("osd.0"), cluster.bind("client.x"));
        client.send(osd(0, &server), ping(0));
        let (peer, _) = received(&server).await;
        for seq in 0..100 {
            server.send(Address::Session(peer.session), packet(1, seq, vec![1; 10_000].into()));
        }
        let read = async {
            for seq in 0..100 {
                assert_eq!(received(&client).await.1.request.seq, seq);
            }
            closed(&client).await;
        };
        tokio::join!(server.shutdown(), read);
        assert_eq!(client.stats().sessions, 0);
    });
}

#[test]
fn both_may_dial_and_sessions_can_be_closed() {
    run(async {
        let cluster = Cluster::new("f");
        let (one, two) = (cluster.bind("osd.1"), cluster.bind("osd.2"));
        one.send(osd(2, &two), ping(1));
        two.send(osd(1, &one), ping(2));
        assert_eq!(received(&two).await.1.request.seq, 1);
        let (peer, got) = received(&one).await;
        assert_eq!(got.request.seq, 2);
        assert_eq!((one.stats().sessions, two.stats().sessions), (2, 2));
        one.close_session(peer.session);
        tokio::join!(closed(&one), closed(&two));
        // Silently dropped.
        one.send(Address::Session(peer.session), ping(3));
        one.send(osd(2, &two), ping(4));
        assert_eq!(received(&two).await.1.request.seq, 4);
    });
}
