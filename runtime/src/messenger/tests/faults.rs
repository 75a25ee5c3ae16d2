//! What goes wrong: restarts, dead ports, strangers, garbage.

use super::kit::*;
use crate::messenger::{Messenger, MessengerConfig, MessengerEvent, explain};
use crate::tls::Validity;
use bytes::BytesMut;
use nacre_types::OsdId;
use nacre_wire::{Address, Message};
use std::time::{Duration, Instant};

#[test]
fn a_peer_that_restarts_is_found_again() {
    run(async {
        let cluster = Cluster::new("f");
        let (server, client) = (cluster.bind("osd.0"), cluster.bind("client.x"));
        let address = server.local_addr();
        let to = osd(0, &server);
        client.send(to.clone(), ping(1));
        received(&server).await;
        server.shutdown().await;
        drop(server);
        closed(&client).await;
        client.send(to.clone(), ping(2));
        let (failed, refused, reason) = failure(&client).await;
        assert_eq!((failed, refused), (to.clone(), true), "{reason}");
        // The socket is released once the endpoint's task has ended.
        let server = loop {
            match Messenger::bind(MessengerConfig { listen: Some(address), ..cluster.config("osd.0") }) {
                Ok(server) => break server,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        client.send(to, ping(3));
        assert_eq!(received(&server).await.1.request.seq, 3);
    });
}

#[test]
fn an_osd_at_another_address_gets_another_session() {
    run(async {
        let cluster = Cluster::new("f");
        let (old, new) = (cluster.bind("osd.0"), cluster.bind("osd.0"));
        let client = cluster.bind("client.x");
        client.send(osd(0, &old), ping(1));
        received(&old).await;
        client.send(osd(0, &new), ping(2));
        assert_eq!(received(&new).await.1.request.seq, 2);
        closed(&old).await;
        closed(&client).await;
        assert_eq!(client.stats().sessions, 1);
    });
}

#[test]
fn a_dead_port_is_noticed_at_once() {
    run(async {
        let cluster = Cluster::new("f");
        let client = cluster.bind("client.x");
        let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let to = Address::Osd { id: OsdId(5), address: free.to_string() };
        let start = Instant::now();
        for _ in 0..3 {
            client.send(to.clone(), ping(1));
            let (address, refused, _) = failure(&client).await;
            assert_eq!((address, refused), (to.clone(), true));
        }
        // Three attempts with their pauses, and nothing like a handshake's timeout.
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        assert!(start.elapsed() > Duration::from_millis(100), "attempts are not paced");
    });
}

#[test]
fn a_killed_peer_is_noticed_before_the_idle_timeout() {
    run(async {
        let cluster = Cluster::new("f");
        let client = cluster.bind("client.x");
        let config = cluster.config("osd.0");
        let (tell, told) = tokio::sync::oneshot::channel();
        let (heard, was_heard) = tokio::sync::oneshot::channel();
        let (kill, killed) = std::sync::mpsc::channel::<()>();
        let victim = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                let server = Messenger::bind(config).unwrap();
                tell.send(server.local_addr()).unwrap();
                received(&server).await;
                heard.send(()).unwrap();
                killed.recv().unwrap();
                // Nothing runs after this, so no goodbye goes out.
            });
        });
        let to = Address::Osd { id: OsdId(0), address: told.await.unwrap().to_string() };
        client.send(to.clone(), ping(1));
        assert!(matches!(client.next_event().await, MessengerEvent::SessionOpened(_)));
        // Joining blocks this end's messenger too: what is to arrive must have arrived.
        was_heard.await.unwrap();
        let start = Instant::now();
        kill.send(()).unwrap();
        victim.join().unwrap();
        closed(&client).await;
        assert_eq!(failure(&client).await.0, to);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    });
}

#[test]
fn somebody_else_at_an_address_is_not_mistaken() {
    run(async {
        let cluster = Cluster::new("f");
        let (server, client) = (cluster.bind("osd.4"), cluster.bind("client.x"));
        client.send(osd(3, &server), ping(1));
        let (_, refused, reason) = failure(&client).await;
        assert!(refused && reason == "osd.4 answers there, not osd.3", "{reason}");
    });
}

#[test]
fn strangers_are_told_why() {
    run(async {
        let (ours, theirs) = (Cluster::new("ours"), Cluster::new("theirs"));
        let server = ours.bind("osd.0");
        let stranger = theirs.bind("client.x");
        stranger.send(osd(0, &server), ping(1));
        let (_, refused, reason) = failure(&stranger).await;
        assert!(!refused && reason.contains("another cluster's CA"), "{reason}");

        // The same cluster name does not help, and neither does trusting our CA.
        let twin = Cluster::new("ours").credentials("client.x", Validity::default());
        let twin = crate::tls::Credentials { ca_pem: ours.ca.certificate_pem().into(), ..twin };
        let twin = Messenger::bind(MessengerConfig::new(twin, None)).unwrap();
        twin.send(osd(0, &server), ping(1));
        let (_, _, reason) = failure(&twin).await;
        assert!(reason.contains("refuses us") && reason.contains("another cluster's CA"), "{reason}");

        let late = MessengerConfig::new(ours.credentials("client.late", expired()), None);
        let late = Messenger::bind(late).unwrap();
        late.send(osd(0, &server), ping(1));
        let (_, _, reason) = failure(&late).await;
        assert!(reason.contains("our certificate expired"), "{reason}");

        let old =
            MessengerConfig { credentials: ours.credentials("osd.1", expired()), ..ours.config("osd.1") };
        let old = Messenger::bind(old).unwrap();
        let client = ours.bind("client.y");
        client.send(osd(1, &old), ping(1));
        let (_, _, reason) = failure(&client).await;
        assert!(reason.contains("the peer's certificate expired"), "{reason}");

        while server.stats().handshakes_failed < 3 {
            tokio::task::yield_now().await;
        }
        assert!(server.try_event().is_none());
    });
}

#[test]
fn wrong_cluster_in_a_good_certificate() {
    run(async {
        // Signed by the right key, but for another fsid: a CA whose key was reused.
        let cluster = Cluster::new("ours");
        let good = cluster.credentials("client.x", Validity::default());
        let entity = "osd.1".parse().unwrap();
        let foreign = crate::tls::ClusterCa::create("theirs").unwrap();
        let (cert_pem, key_pem) = foreign.issue(&entity, Validity::default()).unwrap();
        let mixed = crate::tls::Credentials { cert_pem, key_pem, ..good };
        let error = Messenger::bind(MessengerConfig::new(mixed, None)).err().unwrap().to_string();
        assert!(error.contains("theirs") && error.contains("ours"), "{error}");
    });
}

#[test]
fn garbage_datagrams_change_nothing() {
    run(async {
        let cluster = Cluster::new("f");
        let (server, client) = (cluster.bind("osd.0"), cluster.bind("client.x"));
        let noise = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut random = nacre_types::Rng::new(1);
        client.send(osd(0, &server), ping(0));
        received(&server).await;
        for seq in 1..200 {
            for _ in 0..10 {
                let length = (random.next_u64() % 1500) as usize;
                let mut bytes: Vec<u8> = (0..length).map(|_| random.next_u64() as u8).collect();
                if let [first, ..] = bytes.as_mut_slice() {
                    // Half of them look like long headers of QUIC 1.
                    *first |= 0x40;
                    if random.chance(1, 2) && length > 5 {
                        bytes[0] |= 0x80;
                        bytes[1..5].copy_from_slice(&[0, 0, 0, 1]);
                    }
                }
                noise.send_to(&bytes, server.local_addr()).unwrap();
            }
            client.send(osd(0, &server), ping(seq));
            assert_eq!(received(&server).await.1.request.seq, seq);
        }
        assert_eq!(server.stats().sessions, 1);
    });
}

/// A stream of an authenticated peer that sends `bytes`; the reason the server closes the connection with.
async fn refusal(cluster: &Cluster, server: &Messenger, bytes: &[u8]) -> String {
    let client = cluster.bind("client.bad");
    let inner = &client.inner;
    let connecting =
        inner.endpoint.connect_with(inner.quic.client_near.clone(), server.local_addr(), "nacre").unwrap();
    let connection = connecting.await.unwrap();
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(bytes).await.unwrap();
    explain::explain(&connection.closed().await)
}

#[test]
fn garbage_from_a_known_peer_ends_its_session_with_the_reason() {
    run(async {
        let cluster = Cluster::new("f");
        let server = cluster.bind("osd.0");
        let mut huge = BytesMut::from(&b"NL\x01\x00"[..]);
        ping(1).write_head(&mut huge);
        huge[4 + 12..4 + 16].copy_from_slice(&u32::MAX.to_le_bytes());
        let crc = nacre_types::checksum::crc32(&huge[4..64]);
        huge[64..68].copy_from_slice(&crc.to_le_bytes());
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "not a Nacre stream"),
            (b"NL\x07\x00", "stream version 7"),
            (b"NL\x01\x09", "lane 9"),
            (&[b"NL\x01\x00", &[0; 64][..]].concat(), "not a Nacre frame"),
            (&huge, "exceeds the limit"),
        ] {
            let reason = refusal(&cluster, &server, bytes).await;
            assert!(reason.contains(expected), "{reason}");
        }
        assert_eq!(server.stats().protocol_errors, 5);
        let opened = std::iter::from_fn(|| server.try_event())
            .filter(|event| matches!(event, MessengerEvent::SessionOpened(_)))
            .count();
        assert_eq!(opened, 5);
    });
}

#[test]
fn an_unknown_kind_is_refused_and_the_session_lives() {
    run(async {
        let cluster = Cluster::new("f");
        let (server, client) = (cluster.bind("osd.0"), cluster.bind("client.x"));
        client.send(osd(0, &server), ping(1));
        received(&server).await;
        assert!(matches!(client.next_event().await, MessengerEvent::SessionOpened(_)));
        let connection = client.inner.sessions.borrow().values().next().unwrap().connection().unwrap();
        let mut frame = ping(77).to_frame();
        frame.header.kind = 9999;
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&[b"NL\x01\x00", &frame.encode()[..]].concat()).await.unwrap();
        let (_, reply) = received(&client).await;
        assert_eq!(reply.request.seq, 77);
        assert!(matches!(reply.message, Message::Refused(refused) if refused.kind == 9999));
        client.send(osd(0, &server), ping(2));
        assert_eq!(received(&server).await.1.request.seq, 2);
    });
}

#[test]
fn a_flood_of_handshakes_is_held_off() {
    run(async {
        let cluster = Cluster::new("f");
        let config = MessengerConfig { handshakes_unproven_max: 1, ..cluster.config("osd.0") };
        let server = Messenger::bind(config).unwrap();
        let clients: Vec<Messenger> = (0..20).map(|_| cluster.bind("client.x")).collect();
        for (seq, client) in clients.iter().enumerate() {
            client.send(osd(0, &server), ping(seq as u64));
        }
        // All get in: most had to prove their address first.
        for _ in &clients {
            received(&server).await;
        }
        let full = MessengerConfig { sessions_max: 0, ..cluster.config("osd.1") };
        let full = Messenger::bind(full).unwrap();
        clients[0].send(osd(1, &full), ping(1));
        let (_, refused, reason) = failure(&clients[0]).await;
        assert!(!refused, "{reason}");
        assert_eq!(full.stats().handshakes_failed, 1);
    });
}

#[test]
fn too_much_for_a_peer_that_is_not_there_is_reported() {
    run(async {
        let cluster = Cluster::new("f");
        let config = MessengerConfig { send_queue_bytes_max: 1 << 20, ..cluster.config("client.x") };
        let client = Messenger::bind(config).unwrap();
        // Bound, but nobody answers.
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = Address::Osd { id: OsdId(0), address: silent.local_addr().unwrap().to_string() };
        for _ in 0..2 {
            client.send(to.clone(), packet(1, 1, vec![0; 600 << 10].into()));
        }
        let (address, refused, reason) = failure(&client).await;
        assert_eq!((address, refused), (to, false));
        assert!(reason.contains("queue is full"), "{reason}");
        assert_eq!(client.stats().sessions, 0);
    });
}

#[test]
fn leaving_a_monitor_leads_to_another() {
    run(async {
        let cluster = Cluster::new("f");
        let (a, b) = (cluster.bind("mon.a"), cluster.bind("mon.b"));
        let client = cluster.bind("client.x");
        client.set_monitors([mon("a", &a), mon("b", &b)].map(|m| (m.name, m.address)).into());
        let mut last = None;
        for seq in 0..4 {
            client.send(Address::AnyMon, ping(seq));
            let session = match client.next_event().await {
                MessengerEvent::SessionOpened(peer) => peer,
                other => panic!("{other:?}"),
            };
            assert_ne!(Some(&session.entity), last.as_ref());
            client.close_session(session.session);
            closed(&client).await;
            last = Some(session.entity);
        }
    });
}
