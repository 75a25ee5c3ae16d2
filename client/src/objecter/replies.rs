//! What comes in: answers to calls, maps, events of watches.

use super::Objecter;
use super::call::{Ask, Owner, State};
use crate::ClientEffect;
use crate::slot::Reply;
use nacre_types::{EntityName, Instant, Outbox, mutant};
use nacre_wire::messages::{LogLevel, Refused, Subscribe};
use nacre_wire::op::{ObjectOpKind, OsdOpReply};
use nacre_wire::stages::ClientTimes;
use nacre_wire::{Data, ErrorCode, Message, OpError, Packet, Peer};

/// A read whose data does not match its checksums is asked for again, so often.
const CHECKSUM_ATTEMPTS: u32 = 3;

impl Objecter {
    pub(super) fn on_packet(
        &mut self,
        now: Instant,
        from: Peer,
        packet: Packet,
        out: &mut Outbox<ClientEffect>,
    ) {
        if !is_for_clients(&packet.message) {
            return;
        }
        let osd = match from.entity {
            EntityName::Mon(_) => {
                self.following.mon_heard = Some(now);
                self.following.unreachable = None;
                self.mon_session = Some(from.session);
                None
            }
            EntityName::Osd(osd) => {
                if self.sessions.get(&from.session) != Some(&osd) {
                    self.sessions.retain(|_, of| *of != osd);
                    self.sessions.insert(from.session, osd);
                }
                Some(osd)
            }
            _ => return,
        };
        self.heard_of(now, packet.epoch, osd.map(|_| from.session), out);
        let ours = packet.request.client == self.config.client_id;
        let seq = packet.request.seq & if mutant!(ResentAsNew) { (1 << 40) - 1 } else { u64::MAX };
        match packet.message {
            Message::Maps(maps) => self.on_maps(now, maps, out),
            Message::WatchEvent(event) => self.on_watch_event(now, event),
            Message::Refused(refused) => self.on_refused(now, ours.then_some(seq), refused, out),
            Message::OsdOpReply(reply) if ours => {
                let stale = self.calls.get(&seq).is_none_or(|call| match call.state {
                    State::Sent(Some(route)) => Some(route.osd) != osd,
                    _ => true,
                });
                self.on_op_reply(now, seq, reply, packet.data, packet.epoch.0, stale, out);
            }
            Message::CommandReply(reply) if ours => {
                let code = ErrorCode::from_raw(reply.code);
                if matches!(code, ErrorCode::NoQuorum | ErrorCode::TryAgain) {
                    self.refused_for_now(now, seq, reply.message);
                } else {
                    self.finish(now, seq, checked(code, reply.message.clone(), Reply::Command(reply)), out);
                }
            }
            Message::PgAdminReply(reply) if ours => {
                let code = ErrorCode::from_raw(reply.code);
                if code == ErrorCode::TryAgain {
                    self.refused_for_now(now, seq, reply.message);
                } else {
                    self.finish(now, seq, checked(code, reply.message.clone(), Reply::Admin(reply)), out);
                }
            }
            _ => {}
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn on_op_reply(
        &mut self,
        now: Instant,
        seq: u64,
        reply: OsdOpReply,
        data: Data,
        epoch: u64,
        stale: bool,
        out: &mut Outbox<ClientEffect>,
    ) {
        let Some(call) =
            self.calls.get_mut(&seq).filter(|c| matches!(c.ask, Ask::Object { .. } | Ask::Pg { .. }))
        else {
            return;
        };
        let code = ErrorCode::from_raw(reply.code);
        if code == ErrorCode::TryAgain {
            // One that a former primary sent says nothing about the present one.
            if !stale {
                self.refused_for_now(now, seq, reply.message);
            }
            return;
        }
        if code == ErrorCode::Ok && is_incomplete(&call.ask, &reply, &data) {
            let text = "the change took effect, but what was read with it is not kept for requests sent twice: read again";
            return self.finish(now, seq, Err(OpError::new(ErrorCode::Io, text)), out);
        }
        if let Err(error) = verify(&reply, &data) {
            let text = format!("the answer of request {seq} is damaged: {error}");
            out.push(ClientEffect::Log { level: LogLevel::Error, text: text.clone() });
            call.damaged += 1;
            if call.damaged < CHECKSUM_ATTEMPTS {
                self.back_off(now, seq);
            } else {
                self.finish(now, seq, Err(OpError::new(ErrorCode::Io, text)), out);
            }
            return;
        }
        if let (State::Sent(Some(route)), Some(_)) = (&call.state, reply.osd_ns) {
            let ns = |from: Instant, to: Instant| to.since(from).as_nanos() as u64;
            let times = ClientTimes {
                request: seq,
                total_ns: ns(call.started, now),
                queue_ns: ns(call.started, call.first_sent_at),
                retries_ns: ns(call.first_sent_at, call.sent_at),
            };
            self.measure.note(route.osd, times);
        }
        // A failed request's answers so far are of use to nobody but multi-operation callers, who get them too.
        let result = match (&call.owner, code) {
            (Owner::Linger(_), code) if code != ErrorCode::Ok => Err(OpError::new(code, reply.message)),
            _ => Ok(Reply::Operation { reply, data, epoch }),
        };
        self.finish(now, seq, result, out);
    }

    fn refused_for_now(&mut self, now: Instant, seq: u64, message: String) {
        if let Some(call) = self.calls.get_mut(&seq) {
            call.refusal = message;
            self.back_off(now, seq);
        }
    }

    fn on_refused(
        &mut self,
        now: Instant,
        seq: Option<u64>,
        refused: Refused,
        out: &mut Outbox<ClientEffect>,
    ) {
        let code = match ErrorCode::from_raw(refused.code) {
            ErrorCode::Ok => ErrorCode::NotSupported,
            code => code,
        };
        match seq.filter(|seq| self.calls.contains_key(seq)) {
            Some(seq) => self.finish(now, seq, Err(OpError::new(code, refused.message)), out),
            None => {
                let text = format!("a message of kind {} was refused: {}", refused.kind, refused.message);
                out.push(ClientEffect::Log { level: LogLevel::Warning, text });
                let subscription = refused.kind == u32::from(Message::Subscribe(Subscribe::default()).kind());
                if subscription && code == ErrorCode::NotPermitted {
                    self.subscription_refused(now, &OpError::new(code, refused.message), out);
                }
            }
        }
    }
}

fn checked(code: ErrorCode, message: String, reply: Reply) -> Result<Reply, OpError> {
    if code == ErrorCode::Ok { Ok(reply) } else { Err(OpError::new(code, message)) }
}

/// OSDs answer a change that they have done before from their log, where large answers and data are not kept.
fn is_incomplete(ask: &Ask, reply: &OsdOpReply, data: &Data) -> bool {
    let Ask::Object { op, .. } = ask else { return false };
    let kinds = || op.ops.iter().filter_map(|op| op.kind.as_ref());
    if !kinds().any(ObjectOpKind::is_mutation) {
        return false;
    }
    let asks = kinds().any(|kind| !kind.is_mutation() && kind.payload().is_none() && !is_assertion(kind));
    let data_lost = data.is_empty() && reply.results.iter().any(|result| result.length > 0);
    data_lost || (asks && reply.results.len() < op.ops.len())
}

fn is_assertion(kind: &ObjectOpKind) -> bool {
    use ObjectOpKind::*;
    matches!(kind, AssertLocked(_) | AssertVersion(_) | CompareXattr(_))
}

/// Checks every piece of read data against the checksums that came with it.
fn verify(reply: &OsdOpReply, data: &Data) -> Result<(), String> {
    let mut cut = data.cutter();
    for result in &reply.results {
        let length = usize::try_from(result.length).map_err(|_| "it says it is too long".to_string())?;
        let piece = cut.next(result.offset, length).ok_or("it is too short")?;
        piece.verify(result.offset).map_err(|mismatch| mismatch.to_string())?;
    }
    if cut.is_done() { Ok(()) } else { Err("it is too long".into()) }
}

/// The message kinds a client gets; anything else is ignored.
fn is_for_clients(message: &Message) -> bool {
    use Message::*;
    matches!(
        message,
        Maps(_) | OsdOpReply(_) | CommandReply(_) | PgAdminReply(_) | WatchEvent(_) | Refused(_)
    )
}
