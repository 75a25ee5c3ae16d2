//! Arbitrary bytes and arbitrary requests against whole sessions.

use std::collections::BTreeMap;

use nacre_nbd::Config;
use nacre_nbd::protocol::*;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::*;
use crate::model::Memory;

const DISK_BYTES: usize = 256 << 10;

fn style() -> impl Strategy<Value = Style> {
    prop_oneof![Just(Style::Simple), Just(Style::Structured), Just(Style::Extended)]
}

/// A request, in order or not.
#[derive(Clone, Debug)]
struct Request {
    command: u16,
    flags: u16,
    offset: u64,
    length: u64,
    fill: u8,
}

fn request() -> impl Strategy<Value = Request> {
    let disk = DISK_BYTES as u64;
    let offset = prop_oneof![8 => 0..disk, 1 => Just(disk - 1), 1 => any::<u64>()];
    let length = prop_oneof![4 => 0..9000u64, 4 => 0..100_000u64, 1 => 0..disk];
    let flags = prop_oneof![6 => Just(0u16), 2 => 0..32u16, 1 => any::<u16>()];
    (prop_oneof![9 => 0..8u16, 1 => any::<u16>()], flags, offset, length, any::<u8>())
        .prop_filter("a disconnect ends the session early", |(command, ..)| *command != CMD_DISC)
        .prop_map(|(command, flags, offset, length, fill)| Request { command, flags, offset, length, fill })
}

/// Sends bytes in pieces, takes whatever comes back, and expects nothing but that the server survives.
async fn throw(client: Client, bytes: Vec<u8>, piece: usize) {
    let (mut reading, mut writing) = tokio::io::split(client.stream);
    let reader = tokio::task::spawn_local(async move {
        let mut sink = Vec::new();
        let _ = reading.read_to_end(&mut sink).await;
    });
    for piece in bytes.chunks(piece.max(1)) {
        if writing.write_all(piece).await.is_err() {
            break;
        }
    }
    let _ = writing.shutdown().await;
    let _ = reader.await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn garbage_at_any_stage(
        stage in 0usize..5,
        mut bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        honest_magic: bool,
        piece in 1usize..500,
    ) {
        run(async {
            let (server, disk) = serve(Memory::new(DISK_BYTES), Config::default());
            let client = match stage {
                0 => Client::raw(&server),
                1 => Client::connect(&server).await,
                2 => Client::attach(&server, Style::Simple).await,
                3 => Client::attach(&server, Style::Structured).await,
                _ => Client::attach(&server, Style::Extended).await,
            };
            if honest_magic {
                let magic: &[u8] = match stage {
                    0 => &[0, 0, 0, 3],
                    1 => b"IHAVEOPT\0\0\0",
                    2 | 3 => b"\x25\x60\x95\x13\0\0\0",
                    _ => b"\x21\xe4\x1c\x71\0\0\0",
                };
                bytes.splice(..0, magic.iter().copied());
            }
            throw(client, bytes, piece).await;
            until(|| server.stats().connections == 0).await;
            assert_eq!(server.stats().connections_panicked, 0);
            assert_eq!(disk.inside.get(), 0);
            let mut next = Client::attach(&server, Style::Structured).await;
            assert_eq!(next.read(0, 0, 16).await.len(), 16);
        });
    }

    /// A good conversation with a few bytes changed, and cut off somewhere.
    #[test]
    fn mutated_conversations(
        style in style(),
        requests in proptest::collection::vec(request(), 1..20),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        piece in 1usize..5000,
    ) {
        run(async {
            let (server, disk) = serve(Memory::new(DISK_BYTES), Config::default());
            let client = Client::attach(&server, style).await;
            let mut bytes: Vec<u8> = requests.iter().flat_map(|request| encode(&client, request).1).collect();
            for (place, value) in &changes {
                let place = place.index(bytes.len());
                bytes[place] = *value;
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            throw(client, bytes, piece).await;
            until(|| server.stats().connections == 0).await;
            assert_eq!(server.stats().connections_panicked, 0);
            assert_eq!((disk.inside.get(), server.stats().requests_in_flight), (0, 0));
        });
    }

    /// Requests one after the other: data and errors are those of a plain array of bytes.
    #[test]
    fn one_at_a_time_like_an_array(style in style(), requests in proptest::collection::vec(request(), 1..30)) {
        run(async {
            let (server, disk) = serve(Memory::new(DISK_BYTES), Config::default());
            let mut client = Client::attach(&server, style).await;
            let mut array = vec![0; DISK_BYTES];
            for request in &requests {
                let (cookie, bytes) = encode(&client, request);
                client.send(&bytes).await;
                let reply = client.reply(simple_bytes(request)).await;
                assert_eq!(reply.cookie, cookie);
                let good = in_order(style, request);
                assert_eq!(reply.error == 0, good, "{request:?}: {}", reply.error);
                if good {
                    apply(request, &mut array, &reply);
                }
            }
            assert_eq!(disk.contents(), array);
            assert_eq!(server.stats().connections_panicked, 0);
        });
    }

    /// Requests all at once, to places of their own: each is answered exactly once.
    #[test]
    fn all_at_once(
        style in style(),
        lengths in proptest::collection::vec(prop_oneof![1usize..5000, 1usize..100_000], 1..60),
        piece in 1usize..70_000,
    ) {
        run(async {
            let (server, disk) = serve(Memory::new(8 << 20), Config::default());
            let client = Client::attach(&server, style).await;
            let mut pending = BTreeMap::new();
            let mut bytes = Vec::new();
            let mut array = vec![0; 8 << 20];
            let mut place = 0;
            for (number, length) in lengths.iter().enumerate() {
                array[place..place + length].fill(number as u8 + 1);
                let payload = vec![number as u8 + 1; *length];
                let (cookie, request) = client.encode(CMD_WRITE, 0, place as u64, *length as u64, &payload);
                assert!(pending.insert(cookie, ()).is_none());
                bytes.extend(request);
                place += length;
            }
            let Client { stream, .. } = client;
            let (reading, mut writing) = tokio::io::split(stream);
            let sender = tokio::task::spawn_local(async move {
                for piece in bytes.chunks(piece) {
                    writing.write_all(piece).await.expect("the server reads");
                }
                writing
            });
            let reply_bytes = if style == Style::Extended { 32 } else { 16 };
            let mut reading = reading;
            for _ in 0..lengths.len() {
                let mut reply = vec![0; reply_bytes];
                reading.read_exact(&mut reply).await.expect("a reply");
                let cookie = u64::from_be_bytes(reply[8..16].try_into().expect("eight bytes"));
                assert_eq!(pending.remove(&cookie), Some(()));
            }
            drop(sender.await.expect("the sender"));
            assert!(pending.is_empty());
            assert!(disk.contents() == array);
        });
    }
}

fn encode(client: &Client, request: &Request) -> (u64, Vec<u8>) {
    let Request { command, flags, offset, length, fill } = *request;
    // The flag that says a payload follows is the client's own affair.
    let flags = flags & !CMD_FLAG_PAYLOAD_LEN;
    let payload = if command == CMD_WRITE { vec![fill; length as usize] } else { Vec::new() };
    client.encode(command, flags, offset, length, &payload)
}

fn simple_bytes(request: &Request) -> usize {
    if request.command == CMD_READ { request.length as usize } else { 0 }
}

/// The rules of the protocol, said once more and differently.
fn in_order(style: Style, request: &Request) -> bool {
    let chunked = style != Style::Simple;
    let flags = request.flags & !CMD_FLAG_FUA & !CMD_FLAG_PAYLOAD_LEN;
    let allowed = match request.command {
        CMD_READ if chunked => 0b00100,
        CMD_WRITE_ZEROES => 0b10010,
        CMD_BLOCK_STATUS => 0b01000,
        _ => 0,
    };
    if flags | allowed != allowed {
        return false;
    }
    // The model is not fast at zeroing without a hole, unless there is nothing to do.
    if request.command == CMD_WRITE_ZEROES && request.flags & 0b10010 == 0b10010 && request.length > 0 {
        return false;
    }
    let inside = u128::from(request.offset) + u128::from(request.length) <= DISK_BYTES as u128;
    match request.command {
        CMD_FLUSH => true,
        CMD_READ | CMD_WRITE | CMD_TRIM | CMD_CACHE | CMD_WRITE_ZEROES => inside,
        CMD_BLOCK_STATUS => inside && chunked && request.length > 0,
        _ => false,
    }
}

fn apply(request: &Request, array: &mut [u8], reply: &Reply) {
    let (offset, length) = (request.offset as usize, request.length as usize);
    match request.command {
        CMD_READ => assert!(reply.data(request.offset, length) == array[offset..offset + length]),
        CMD_WRITE => array[offset..offset + length].fill(request.fill),
        // The model's trim zeroes.
        CMD_TRIM | CMD_WRITE_ZEROES => array[offset..offset + length].fill(0),
        CMD_BLOCK_STATUS => {
            let mut place = offset;
            for (length, flags) in reply.extents() {
                let extent = &array[place..place + length as usize];
                assert!(flags == 0 || extent.iter().all(|byte| *byte == 0), "a hole must read as zeroes");
                place += length as usize;
            }
            assert!(place > offset && place <= offset + length);
        }
        _ => {}
    }
}
