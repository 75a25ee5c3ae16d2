//! Reading one stream: preamble, then frames, into the inbox.
//!
//! A stream begins with four bytes: `"NL"`, a version, and the lane. A peer that sends anything but well-formed frames is
//! disconnected with the reason; a message kind this version does not know is refused by name and reading goes on.

use super::session::Session;
use super::{Inner, MessengerEvent, explain};
use bytes::{Buf as _, Bytes};
use nacre_types::Epoch;
use nacre_wire::frame::{Frame, FrameDecoder};
use nacre_wire::messages::Refused;
use nacre_wire::packet::PacketError;
use nacre_wire::{ErrorCode, Lane, Message, Packet, Peer};
use quinn::{Connection, ReadError, RecvStream};
use std::rc::Rc;

const PREAMBLE_BYTES: usize = 4;
const PREAMBLE_VERSION: u8 = 1;
/// Chunks taken from QUIC at a time: one packet each.
const CHUNKS: usize = 32;

pub(super) fn preamble(lane: Lane) -> Bytes {
    Bytes::copy_from_slice(&[b'N', b'L', PREAMBLE_VERSION, lane.index() as u8])
}

fn parse_preamble(bytes: [u8; PREAMBLE_BYTES]) -> Result<Lane, String> {
    match bytes {
        [b'N', b'L', PREAMBLE_VERSION, lane] => {
            let known = Lane::ALL.get(usize::from(lane)).copied();
            known.ok_or_else(|| format!("lane {lane} is unknown to this version"))
        }
        [b'N', b'L', version, _] => Err(format!("stream version {version} is unknown to this version")),
        _ => Err("not a Nacre stream".into()),
    }
}

enum End {
    /// Finished, reset, or the connection is gone: nobody's fault.
    Quiet,
    Broken(String),
}

impl From<ReadError> for End {
    fn from(_: ReadError) -> End {
        End::Quiet
    }
}

pub(super) async fn read(
    inner: Rc<Inner>,
    session: Rc<Session>,
    connection: Connection,
    peer: Peer,
    mut stream: RecvStream,
) {
    if let Err(End::Broken(reason)) = frames(&inner, &session, &peer, &mut stream).await {
        inner.counters.protocol_errors.add(1);
        inner.log.warn(|| {
            format!("{} at {}: {reason}: closing the session", peer.entity, connection.remote_address())
        });
        connection.close(explain::CODE_PROTOCOL.into(), reason.as_bytes());
    }
}

async fn frames(
    inner: &Rc<Inner>,
    session: &Rc<Session>,
    peer: &Peer,
    stream: &mut RecvStream,
) -> Result<(), End> {
    let mut opening = [0; PREAMBLE_BYTES];
    match stream.read_exact(&mut opening).await {
        Ok(()) => {}
        Err(_) => return Err(End::Quiet),
    }
    let lane = parse_preamble(opening).map_err(End::Broken)?;
    let urgent = lane == Lane::Control;
    let mut decoder = FrameDecoder::new();
    let mut chunks: [Bytes; CHUNKS] = std::array::from_fn(|_| Bytes::new());
    loop {
        std::future::poll_fn(|cx| inner.inbox.poll_room(cx, urgent)).await;
        let Some(count) = stream.read_chunks(&mut chunks).await? else {
            return decoder.finish().map_err(|e| End::Broken(e.to_string()));
        };
        for chunk in &mut chunks[..count] {
            decoder.feed_bytes(std::mem::take(chunk));
        }
        while let Some(frame) = decoder.next_frame().map_err(|e| End::Broken(e.to_string()))? {
            deliver(inner, session, peer, frame, urgent)?;
        }
    }
}

fn deliver(
    inner: &Rc<Inner>,
    session: &Rc<Session>,
    peer: &Peer,
    frame: Frame,
    urgent: bool,
) -> Result<(), End> {
    inner.counters.frames_received.add(1);
    let header = frame.header;
    // Decoded messages take more memory than their bytes.
    let bytes = frame.body.remaining() * 2 + frame.payload.len() + frame.crcs.len() * 4;
    match Packet::from_frame(frame) {
        Ok(packet) => {
            inner.inbox.push(MessengerEvent::Received { from: peer.clone(), packet }, bytes, urgent);
            Ok(())
        }
        Err(error @ PacketError::UnknownKind { kind }) => {
            let message = error.to_string();
            inner.log.warn(|| format!("{}: {message}", peer.entity));
            let refused = Refused { code: ErrorCode::NotSupported as i32, message, kind: kind.into() };
            let request =
                nacre_types::RequestId { client: nacre_types::ClientId(header.client), seq: header.seq };
            let reply = Packet::new(Epoch(header.epoch), Message::from(refused)).request(request);
            inner.enqueue(session, &reply);
            Ok(())
        }
        Err(error @ PacketError::Malformed { .. }) => Err(End::Broken(error.to_string())),
    }
}
