//! Watchers come, are told, answer or not, and go.

use super::*;
use nacre_types::PoolId;

fn object() -> ObjectId {
    ObjectId::new(PoolId(1), "", "header").unwrap()
}

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn request(seq: u64) -> RequestId {
    RequestId { client: ClientId(9), seq }
}

fn watching(clients: u64) -> Registry {
    let mut registry = Registry::new(100);
    for client in 1..=clients {
        registry.watch(at(0), &object(), ClientId(client), 7, SessionId(client), 1000).unwrap();
    }
    registry
}

fn sent(outputs: &[WatchOutput]) -> Vec<(u64, u64, bool)> {
    let send = |output: &WatchOutput| match output {
        WatchOutput::Send { session, event } => Some((session.0, event.notify_id, event.disconnected)),
        WatchOutput::Notified { .. } => None,
    };
    outputs.iter().filter_map(send).collect()
}

#[test]
fn a_notification_ends_when_all_have_answered() {
    let mut registry = watching(2);
    registry.notify(at(1), &object(), request(1), Bytes::from_static(b"hi"), 500).unwrap();
    registry.notify(at(2), &object(), request(1), Bytes::from_static(b"hi"), 500).unwrap();
    assert_eq!(sent(&registry.take_outputs()), [(1, 100, false), (2, 100, false)]);
    registry.ack(100, ClientId(1), 7, Bytes::from_static(b"one"));
    registry.ack(100, ClientId(1), 7, Bytes::from_static(b"again"));
    registry.ack(100, ClientId(3), 7, Bytes::new());
    assert!(registry.take_outputs().is_empty());
    registry.ack(100, ClientId(2), 7, Bytes::new());
    let [WatchOutput::Notified { request: of, reply }] = &registry.take_outputs()[..] else { panic!() };
    assert_eq!((*of, reply.acks.len(), reply.missed.len()), (request(1), 2, 0));
}

#[test]
fn nobody_watches() {
    let mut registry = Registry::new(1);
    registry.notify(at(1), &object(), request(1), Bytes::new(), 0).unwrap();
    assert!(matches!(registry.take_outputs()[..], [WatchOutput::Notified { .. }]));
    assert!(registry.is_empty() && registry.next_deadline().is_none());
}

#[test]
fn silence_times_out_and_a_renewed_watch_does_not() {
    let mut registry = watching(2);
    registry.notify(at(1), &object(), request(1), Bytes::new(), 500).unwrap();
    registry.ack(100, ClientId(1), 7, Bytes::new());
    registry.take_outputs();
    assert_eq!(registry.next_deadline(), Some(at(501)));
    registry.tick(at(501));
    let [WatchOutput::Notified { reply, .. }] = &registry.take_outputs()[..] else { panic!() };
    assert_eq!(reply.missed, [2]);
    registry.watch(at(900), &object(), ClientId(2), 7, SessionId(2), 1000).unwrap();
    registry.tick(at(1000));
    assert_eq!(sent(&registry.take_outputs()), [(1, 0, true)]);
    assert_eq!(registry.watchers(&object()), [(ClientId(2), 7)]);
}

#[test]
fn a_watcher_that_returns_gets_what_it_missed() {
    let mut registry = watching(1);
    registry.session_closed(SessionId(1));
    registry.notify(at(1), &object(), request(1), Bytes::new(), 500).unwrap();
    assert!(registry.take_outputs().is_empty());
    registry.watch(at(2), &object(), ClientId(1), 7, SessionId(5), 1000).unwrap();
    assert_eq!(sent(&registry.take_outputs()), [(5, 100, false)]);
    registry.watch(at(3), &object(), ClientId(1), 7, SessionId(5), 1000).unwrap();
    assert!(registry.take_outputs().is_empty());
    registry.object_removed(&object());
    let outputs = registry.take_outputs();
    assert_eq!(sent(&outputs), [(5, 0, true)]);
    assert!(matches!(outputs[1], WatchOutput::Notified { .. }));
    assert!(registry.is_empty());
}

#[test]
fn a_fenced_client_watches_nothing() {
    let mut registry = watching(3);
    registry.client_gone(ClientId(2));
    registry.unwatch(&object(), ClientId(3), 7);
    assert_eq!(sent(&registry.take_outputs()), [(2, 0, true)]);
    assert_eq!(registry.watchers(&object()), [(ClientId(1), 7)]);
}
