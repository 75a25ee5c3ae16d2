//! A cluster's credentials, messengers, and packets to send.

use crate::messenger::{Messenger, MessengerConfig, MessengerEvent};
use crate::tls::{ClusterCa, Credentials, MonAddress, Validity};
use bytes::Bytes;
use nacre_types::{Epoch, OsdId, RequestId};
use nacre_wire::messages::{Ping, PushReply, RepOpReply};
use nacre_wire::op::OsdOpReply;
use nacre_wire::{Address, Data, Message, Packet, Peer};
use std::future::Future;
use std::time::Duration;

/// Far more than any test needs: a hang ends as a failure.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async { tokio::time::timeout(TEST_TIMEOUT, test).await.expect("the test hangs") };
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

pub struct Cluster {
    pub ca: ClusterCa,
}

impl Cluster {
    pub fn new(fsid: &str) -> Cluster {
        Cluster { ca: ClusterCa::create(fsid).unwrap() }
    }

    pub fn credentials(&self, entity: &str, validity: Validity) -> Credentials {
        let entity = entity.parse().unwrap();
        let (cert_pem, key_pem) = self.ca.issue(&entity, validity).unwrap();
        let ca_pem = self.ca.certificate_pem().into();
        Credentials { fsid: self.ca.fsid().into(), entity, monitors: vec![], ca_pem, cert_pem, key_pem }
    }

    pub fn config(&self, entity: &str) -> MessengerConfig {
        let listen = (!entity.starts_with("client")).then(|| "127.0.0.1:0".parse().unwrap());
        MessengerConfig::new(self.credentials(entity, Validity::default()), listen)
    }

    pub fn bind(&self, entity: &str) -> Messenger {
        Messenger::bind(self.config(entity)).unwrap()
    }
}

pub fn expired() -> Validity {
    let now = time::OffsetDateTime::now_utc();
    Validity { not_before: now - Duration::from_secs(7200), not_after: now - Duration::from_secs(3600) }
}

pub fn mon(name: &str, messenger: &Messenger) -> MonAddress {
    MonAddress { name: name.into(), address: messenger.local_addr().to_string() }
}

pub fn osd(id: u32, messenger: &Messenger) -> Address {
    Address::Osd { id: OsdId(id), address: messenger.local_addr().to_string() }
}

/// A packet of the lane `lane`, recognisable by `seq`.
pub fn packet(lane: usize, seq: u64, payload: Bytes) -> Packet {
    let message: Message = match lane {
        0 => Ping::default().into(),
        1 => OsdOpReply::default().into(),
        2 => RepOpReply::default().into(),
        _ => PushReply::default().into(),
    };
    let packet = Packet::new(Epoch(1), message).request(RequestId { seq, ..RequestId::default() });
    assert_eq!(packet.lane().index(), lane);
    if payload.is_empty() { packet } else { packet.with(Data::plain(payload)) }
}

pub fn ping(seq: u64) -> Packet {
    packet(0, seq, Bytes::new())
}

/// The next packet, past news of sessions.
pub async fn received(messenger: &Messenger) -> (Peer, Packet) {
    loop {
        match messenger.next_event().await {
            MessengerEvent::Received { from, packet } => return (from, packet),
            MessengerEvent::SessionOpened(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The next failure to connect, past news of sessions.
pub async fn failure(messenger: &Messenger) -> (Address, bool, String) {
    loop {
        match messenger.next_event().await {
            MessengerEvent::ConnectFailed { address, refused, reason, .. } => {
                return (address, refused, reason);
            }
            MessengerEvent::Received { packet, .. } => panic!("{packet:?}"),
            _ => {}
        }
    }
}

/// Waits for the end of some session.
pub async fn closed(messenger: &Messenger) {
    while !matches!(messenger.next_event().await, MessengerEvent::SessionClosed { .. }) {}
}

/// Answers every packet with itself.
pub async fn echo(messenger: &Messenger) -> ! {
    loop {
        if let MessengerEvent::Received { from, packet } = messenger.next_event().await {
            messenger.send(Address::Session(from.session), packet);
        }
    }
}
