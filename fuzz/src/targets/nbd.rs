//! The NBD gateway: its decoders, and whole sessions over a stream in memory.

use crate::input::Input;
use nacre_nbd::protocol::option::*;
use nacre_nbd::protocol::request::RequestHeader;
use nacre_nbd::protocol::*;
use nacre_nbd::{Config, Server};
use std::rc::Rc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[path = "../../../gateway/nbd/tests/model/mod.rs"]
mod model;

use model::{Disks, Memory};

const DISK_BYTES: usize = 64 << 10;

/// Flags, an option's header and its data.
pub fn options(input: &[u8]) {
    let mut input = Input(input);
    let mut flags = [0; CLIENT_FLAGS_BYTES];
    flags.iter_mut().for_each(|byte| *byte = input.u8());
    let _ = ClientFlags::decode(flags);
    if let Some(header) = input.0.first_chunk::<OPTION_HEADER_BYTES>()
        && let Ok(header) = OptionHeader::decode(header)
    {
        let data = &input.0[OPTION_HEADER_BYTES..];
        let data = &data[..data.len().min(header.length as usize)];
        if let Ok(ClientOption::ListMetaContext(request)) = ClientOption::decode(header.option, data) {
            let _ = (request.lists_allocation(), request.sets_allocation());
        }
    }
    for extended in [false, true] {
        if let Ok(Some(header)) = RequestHeader::decode(input.0, extended) {
            let _ = header.payload_bytes(extended);
        }
    }
}

pub fn options_seeds() -> Vec<Vec<u8>> {
    let flags = 3_u32.to_be_bytes();
    let mut seeds: Vec<Vec<u8>> =
        conversations().iter().map(|option| [&flags[..], option].concat()).collect();
    seeds.push([&flags[..], &request(CMD_WRITE, 0, 4, b"data")].concat());
    seeds
}

/// A byte of how the stream is cut, then all a client says. The server must answer or close, and be whole afterwards.
pub fn session(input: &[u8]) {
    let mut input = Input(input);
    let cut = 16 * (usize::from(input.u8()) + 1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let disk = Rc::new(Memory::new(DISK_BYTES));
        let exports = Rc::new(Disks(vec![("disk".to_owned(), Rc::clone(&disk))]));
        let server = Server::new(exports, Config::default()).expect("a valid configuration");
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        server.serve_stream(theirs, "fuzzer".to_owned());
        let (mut reading, mut writing) = tokio::io::split(ours);
        let reader = tokio::task::spawn_local(async move {
            let (mut sink, mut total) = (vec![0; 64 << 10], 0_u64);
            while let Ok(count @ 1..) = reading.read(&mut sink).await {
                total += count as u64;
            }
            total
        });
        for piece in input.0.chunks(cut) {
            if writing.write_all(piece).await.is_err() {
                break;
            }
        }
        let _ = writing.shutdown().await;
        let answered = reader.await.expect("the reader ends");
        while server.stats().connections > 0 {
            tokio::task::yield_now().await;
        }
        let stats = server.stats();
        assert_eq!((stats.connections_panicked, stats.requests_in_flight, disk.inside.get()), (0, 0, 0));
        // A request of 28 bytes may ask for the whole disk.
        let most = (input.0.len() as u64 + 64) * DISK_BYTES as u64;
        assert!(answered <= most, "{answered} bytes of answers to {} bytes", input.0.len());
    });
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = OPTION_MAGIC.to_be_bytes().to_vec();
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

fn request(command: u16, offset: u64, length: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = REQUEST_MAGIC.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&command.to_be_bytes());
    bytes.extend_from_slice(&7_u64.to_be_bytes());
    bytes.extend_from_slice(&offset.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

fn extended(command: u16, flags: u16, offset: u64, length: u64, data: &[u8]) -> Vec<u8> {
    let mut bytes = EXTENDED_REQUEST_MAGIC.to_be_bytes().to_vec();
    bytes.extend_from_slice(&flags.to_be_bytes());
    bytes.extend_from_slice(&command.to_be_bytes());
    bytes.extend_from_slice(&7_u64.to_be_bytes());
    bytes.extend_from_slice(&offset.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

fn conversations() -> Vec<Vec<u8>> {
    let go = [&4_u32.to_be_bytes()[..], b"disk", &1_u16.to_be_bytes(), &3_u16.to_be_bytes()].concat();
    let context =
        [&4_u32.to_be_bytes()[..], b"disk", &1_u32.to_be_bytes(), &15_u32.to_be_bytes(), b"base:allocation"]
            .concat();
    vec![
        option(OPT_GO, &go),
        option(OPT_INFO, &go),
        option(OPT_LIST, b""),
        option(OPT_EXPORT_NAME, b"disk"),
        option(OPT_STRUCTURED_REPLY, b""),
        option(OPT_EXTENDED_HEADERS, b""),
        option(OPT_SET_META_CONTEXT, &context),
        option(OPT_LIST_META_CONTEXT, &context),
        option(OPT_ABORT, b""),
    ]
}

pub fn session_seeds() -> Vec<Vec<u8>> {
    let all = conversations();
    let (go, structured, headers, context) = (&all[0], &all[4], &all[5], &all[6]);
    let hello = [&[255][..], &3_u32.to_be_bytes()].concat();
    let compact = [
        request(CMD_WRITE, 512, 4, b"data"),
        request(CMD_READ, 0, 4096, b""),
        request(CMD_TRIM, 4096, 8192, b""),
        request(CMD_WRITE_ZEROES, 0, 4096, b""),
        request(CMD_BLOCK_STATUS, 0, 65_536, b""),
        request(CMD_FLUSH, 0, 0, b""),
        request(CMD_CACHE, 0, 100, b""),
        request(CMD_DISC, 0, 0, b""),
    ]
    .concat();
    let long = [
        extended(CMD_WRITE, CMD_FLAG_PAYLOAD_LEN, 512, 4, b"data"),
        extended(CMD_READ, 0, 0, 4096, b""),
        extended(CMD_BLOCK_STATUS, 0, 0, 65_536, b""),
        extended(CMD_DISC, 0, 0, 0, b""),
    ]
    .concat();
    vec![
        [&hello[..], go, &compact].concat(),
        [&hello[..], structured, context, go, &compact].concat(),
        [&hello[..], headers, context, go, &long].concat(),
        [&hello[..], &all[2], &all[1], &all[7], &all[8]].concat(),
        [&hello[..], &all[3], &compact].concat(),
    ]
}
