//! How replies leave: what a read turns into, partial writes, and when memory is given back.

use std::pin::Pin;
use std::rc::Rc;
use std::task::Waker;

use proptest::prelude::*;

use super::*;
use crate::export::ExtentState;
use crate::session::budget::{ConnectionBudget, ServerBudget};

/// Takes at most so many bytes a write, then pauses once.
struct Trickle {
    taken: Vec<u8>,
    step: usize,
    pause: bool,
}

impl AsyncWrite for Trickle {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.pause = !self.pause;
        if self.pause {
            return Poll::Pending;
        }
        let part = bytes.len().min(self.step);
        self.taken.extend_from_slice(&bytes[..part]);
        Poll::Ready(Ok(part))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn budget() -> ConnectionBudget {
    ConnectionBudget::new(ServerBudget::new(1 << 30), 1 << 30)
}

fn take(budget: &mut ConnectionBudget, bytes: usize) -> Held {
    match budget.poll_take(&mut Context::from_waker(Waker::noop()), bytes) {
        Poll::Ready(charge) => Rc::new(charge),
        Poll::Pending => panic!("the budget is large enough"),
    }
}

fn sent(output: &mut Output, step: usize) -> Vec<u8> {
    let mut socket = Trickle { taken: Vec::new(), step, pause: false };
    let mut cx = Context::from_waker(Waker::noop());
    while !output.is_empty() {
        if let Poll::Ready(result) = output.poll_send(&mut cx, &mut socket) {
            result.expect("the socket takes all");
        }
    }
    socket.taken
}

fn read(segments: Vec<Segment>, length: u32, dont_fragment: bool) -> Answer {
    Answer::Read { result: Ok(segments), offset: 0x1000, length, dont_fragment }
}

fn reply(style: ReplyStyle, answer: Answer) -> (Vec<u8>, Option<Failure>) {
    let mut output = Output::new(style);
    let held = take(&mut budget(), 1);
    let failure = output.push(Completion { to: ReplyTo { cookie: 1, offset: 0x1000 }, answer, held });
    (sent(&mut output, usize::MAX), failure)
}

fn data(length: usize) -> Segment {
    Segment::Data(Bytes::from(vec![7; length]))
}

/// The chunks of a structured reply: type, whether it is the last, payload.
fn chunks(mut bytes: &[u8]) -> Vec<(u16, bool, Vec<u8>)> {
    let mut chunks = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(bytes.get_u32(), 0x668e_33ef);
        let last = bytes.get_u16() == 1;
        let kind = bytes.get_u16();
        assert_eq!(bytes.get_u64(), 1);
        let length = bytes.get_u32() as usize;
        chunks.push((kind, last, bytes[..length].to_vec()));
        bytes.advance(length);
    }
    chunks
}

#[test]
fn data_and_holes_become_chunks() {
    let segments =
        vec![data(4096), data(4096), Segment::Zero(4096), Segment::Zero(8192), data(100), Segment::Zero(100)];
    let (bytes, failure) = reply(ReplyStyle::Structured, read(segments, 20680, false));
    assert_eq!(failure, None);
    let chunks = chunks(&bytes);
    let shape: Vec<_> = chunks.iter().map(|(kind, last, payload)| (*kind, *last, payload.len())).collect();
    assert_eq!(shape, [(1, false, 8 + 8192), (2, false, 12), (1, true, 8 + 200)]);
    assert_eq!(chunks[0].2[..9], [0, 0, 0, 0, 0, 0, 0x10, 0, 7]);
    assert_eq!(chunks[1].2, [0, 0, 0, 0, 0, 0, 0x30, 0, 0, 0, 0x30, 0]);
    assert_eq!(chunks[2].2[8..], [[7; 100], [0; 100]].concat(), "a short hole is sent as zeroes");
}

#[test]
fn dont_fragment_means_one_chunk() {
    let (bytes, _) =
        reply(ReplyStyle::Structured, read(vec![data(8), Segment::Zero(200_000), data(8)], 200_016, true));
    let chunks = chunks(&bytes);
    assert_eq!(chunks.len(), 1);
    assert_eq!((chunks[0].0, chunks[0].1, chunks[0].2.len()), (1, true, 8 + 200_016));
    let (bytes, _) =
        reply(ReplyStyle::Structured, read(vec![Segment::Zero(100), Segment::Zero(4000)], 4100, true));
    assert_eq!(self::chunks(&bytes), [(2, true, vec![0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0x10, 4])]);
}

#[test]
fn simple_replies_carry_the_zeroes() {
    let (bytes, _) = reply(ReplyStyle::Simple, read(vec![Segment::Zero(100_000), data(2)], 100_002, false));
    assert_eq!(bytes.len(), 16 + 100_002);
    assert!(bytes[16..100_016].iter().all(|byte| *byte == 0));
    assert_eq!(bytes[100_016..], [7, 7]);
}

#[test]
fn an_export_that_returns_the_wrong_amount_is_a_failed_read() {
    for segments in
        [vec![], vec![data(99)], vec![data(100), Segment::Zero(1)], vec![Segment::Zero(u64::MAX), data(101)]]
    {
        let (bytes, failure) = reply(ReplyStyle::Structured, read(segments, 100, false));
        assert_eq!(failure.map(|failure| failure.errno), Some(Errno::Io));
        assert_eq!(chunks(&bytes)[0].0, 0x8001);
    }
}

#[test]
fn extents_are_merged_and_cut() {
    let extent = |length, state| Extent { length, state };
    let (data, hole) = (ExtentState::Data, ExtentState::Hole);
    let extents = vec![extent(1, data), extent(0, hole), extent(2, data), extent(4, hole), extent(100, data)];
    let merged = check_extents(extents.clone(), 10, false);
    assert_eq!(merged, Ok(vec![extent(3, data), extent(4, hole), extent(3, data)]));
    assert_eq!(check_extents(extents.clone(), 10, true), Ok(vec![extent(3, data)]));
    assert_eq!(check_extents(extents, 2, true), Ok(vec![extent(2, data)]));
    assert!(check_extents(vec![], 10, false).is_err());
    assert!(check_extents(vec![extent(0, hole)], 10, false).is_err());
    let stripes = (0..20_000).map(|at| extent(1, if at % 2 == 0 { data } else { hole })).collect();
    assert_eq!(check_extents(stripes, 20_000, false).map(|extents| extents.len()), Ok(MAX_EXTENTS));
}

#[test]
fn memory_is_given_back_when_the_last_byte_left() {
    let mut budget = budget();
    let mut output = Output::new(ReplyStyle::Simple);
    for cookie in 0..3 {
        let held = take(&mut budget, 1000);
        let answer =
            Answer::Read { result: Ok(vec![data(1000)]), offset: 0, length: 1000, dont_fragment: false };
        output.push(Completion { to: ReplyTo { cookie, offset: 0 }, answer, held });
    }
    assert_eq!((budget.held(), output.replies()), (3000, 3));
    let mut socket = Trickle { taken: Vec::new(), step: 1016, pause: true };
    let mut cx = Context::from_waker(Waker::noop());
    let mut send = |output: &mut Output| while output.poll_send(&mut cx, &mut socket).is_pending() {};
    send(&mut output);
    assert_eq!(budget.held(), 3000, "the head is sent, the data is not");
    send(&mut output);
    assert_eq!((budget.held(), output.replies()), (2000, 2));
    output.clear();
    assert_eq!((budget.held(), output.is_empty()), (0, true));
}

proptest! {
    /// However the socket cuts it, the same bytes leave, and everything held is returned.
    #[test]
    fn partial_writes_lose_nothing(
        lengths in proptest::collection::vec(0usize..3000, 1..40),
        step in 1usize..5000,
    ) {
        let mut budget = budget();
        let mut expected = Vec::new();
        let mut output = Output::new(ReplyStyle::Simple);
        for (cookie, length) in lengths.iter().enumerate() {
            let bytes = vec![cookie as u8; *length];
            expected.extend([0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0]);
            expected.extend((cookie as u64).to_be_bytes());
            expected.extend(&bytes);
            let result = Ok(vec![Segment::Data(bytes.into())]);
            let answer = Answer::Read { result, offset: 0, length: *length as u32, dont_fragment: false };
            let held = take(&mut budget, *length + 1);
            output.push(Completion { to: ReplyTo { cookie: cookie as u64, offset: 0 }, answer, held });
        }
        // The trickling socket takes one slice at a time, so this covers cuts within and between slices.
        prop_assert_eq!(sent(&mut output, step), expected);
        prop_assert_eq!(budget.held(), 0);
    }
}
