//! A bare NBD client over any stream, for tests: it sends what it is told, right or wrong, and takes replies apart.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use nacre_nbd::protocol::*;
use nacre_nbd::{Config, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::model::{Disks, Memory};

/// Longer than any test takes unless something hangs.
const HANG: Duration = Duration::from_secs(60);
/// The socket buffer between client and server.
const PIPE_BYTES: usize = 64 << 10;

/// Runs a test on the kind of runtime the gateway has.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async { tokio::time::timeout(HANG, test).await.expect("the test hangs") });
}

/// A server of one disk called `disk`.
pub fn serve(memory: Memory, config: Config) -> (Server, Rc<Memory>) {
    let disk = Rc::new(memory);
    let server = Server::new(Rc::new(Disks(vec![("disk".to_owned(), Rc::clone(&disk))])), config);
    (server.expect("a valid configuration"), disk)
}

/// Lets the server work until `done`.
pub async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        tokio::task::yield_now().await;
    }
}

/// Lets everything that can run do so, without saying when that is over: enough turns for any queue in these tests.
pub async fn settle() {
    for _ in 0..2000 {
        tokio::task::yield_now().await;
    }
}

pub struct Client {
    pub stream: DuplexStream,
    extended: bool,
    next_cookie: Cell<u64>,
}

/// One reply, with all its chunks.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub cookie: u64,
    pub error: u32,
    /// Type and payload of each chunk; a simple reply has none.
    pub chunks: Vec<(u16, Vec<u8>)>,
}

/// How much of the protocol a client negotiates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Simple,
    Structured,
    Extended,
}

impl Client {
    /// Connects and exchanges flags.
    pub async fn connect(server: &Server) -> Client {
        let mut client = Client::raw(server);
        let mut greeting = [0; 18];
        client.stream.read_exact(&mut greeting).await.expect("a greeting");
        assert_eq!(&greeting, b"NBDMAGICIHAVEOPT\0\x03");
        client.send(&[0, 0, 0, 3]).await;
        client
    }

    /// Connects and says nothing.
    pub fn raw(server: &Server) -> Client {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        server.serve_stream(far, "test".to_owned());
        Client { stream: near, extended: false, next_cookie: Cell::new(1) }
    }

    /// Connects and attaches to `disk`, with block status where the style has it.
    pub async fn attach(server: &Server, style: Style) -> Client {
        let mut client = Client::connect(server).await;
        match style {
            Style::Simple => {}
            Style::Structured => client.expect_ack(OPT_STRUCTURED_REPLY, &[]).await,
            Style::Extended => client.expect_ack(OPT_EXTENDED_HEADERS, &[]).await,
        }
        client.extended = style == Style::Extended;
        if style != Style::Simple {
            let data = [text("disk"), 1u32.to_be_bytes().to_vec(), text(BASE_ALLOCATION)].concat();
            client.expect_ack(OPT_SET_META_CONTEXT, &data).await;
        }
        client.expect_ack(OPT_GO, &go("disk", &[INFO_BLOCK_SIZE])).await;
        client
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the server reads");
    }

    /// Sends an option and collects its replies up to the last.
    pub async fn option(&mut self, option: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let length = (data.len() as u32).to_be_bytes();
        self.send(&[b"IHAVEOPT", &option.to_be_bytes()[..], &length, data].concat()).await;
        let mut replies = Vec::new();
        loop {
            assert_eq!(self.u64().await, OPTION_REPLY_MAGIC);
            assert_eq!(self.u32().await, option);
            let kind = self.u32().await;
            let length = self.u32().await;
            replies.push((kind, self.bytes(length as usize).await));
            if kind == REP_ACK || kind >= 1 << 31 {
                return replies;
            }
        }
    }

    pub async fn expect_ack(&mut self, option: u32, data: &[u8]) {
        let replies = self.option(option, data).await;
        assert_eq!(replies.last().map(|(kind, _)| *kind), Some(REP_ACK), "{replies:?}");
    }

    /// The one reply to an option that is refused.
    pub async fn expect_error(&mut self, option: u32, data: &[u8]) -> (u32, String) {
        let mut replies = self.option(option, data).await;
        let (kind, message) = replies.pop().expect("a reply");
        assert!(kind >= 1 << 31, "option {option} was accepted");
        (kind, String::from_utf8(message).expect("text"))
    }

    /// Encodes a request; the header says `length`, whatever the payload is.
    pub fn encode(
        &self,
        command: u16,
        flags: u16,
        offset: u64,
        length: u64,
        payload: &[u8],
    ) -> (u64, Vec<u8>) {
        let cookie = self.next_cookie.get();
        self.next_cookie.set(cookie + 1);
        let mut flags = flags;
        if self.extended && command == CMD_WRITE {
            flags |= CMD_FLAG_PAYLOAD_LEN;
        }
        let magic = if self.extended { EXTENDED_REQUEST_MAGIC } else { REQUEST_MAGIC };
        let mut bytes = magic.to_be_bytes().to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(command.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        bytes.extend(offset.to_be_bytes());
        if self.extended {
            bytes.extend(length.to_be_bytes());
        } else {
            bytes.extend((length as u32).to_be_bytes());
        }
        bytes.extend(payload);
        (cookie, bytes)
    }

    /// Sends a request without payload.
    pub async fn request(&mut self, command: u16, flags: u16, offset: u64, length: u64) -> u64 {
        let (cookie, bytes) = self.encode(command, flags, offset, length, &[]);
        self.send(&bytes).await;
        cookie
    }

    pub async fn write(&mut self, offset: u64, data: &[u8]) -> u64 {
        let (cookie, bytes) = self.encode(CMD_WRITE, 0, offset, data.len() as u64, data);
        self.send(&bytes).await;
        cookie
    }

    /// Receives one reply. `simple_bytes` is the data that follows if it is a simple one and a success.
    pub async fn reply(&mut self, simple_bytes: usize) -> Reply {
        let mut chunks = Vec::new();
        let mut error = 0;
        loop {
            let magic = self.u32().await;
            if magic == SIMPLE_REPLY_MAGIC {
                assert!(chunks.is_empty() && !self.extended);
                let error = self.u32().await;
                let cookie = self.u64().await;
                let data = if error == 0 { simple_bytes } else { 0 };
                let data = self.bytes(data).await;
                let chunks = if data.is_empty() { chunks } else { vec![(REPLY_TYPE_OFFSET_DATA, data)] };
                return Reply { cookie, error, chunks };
            }
            assert_eq!(magic, if self.extended { EXTENDED_REPLY_MAGIC } else { STRUCTURED_REPLY_MAGIC });
            let flags = self.u16().await;
            let kind = self.u16().await;
            let cookie = self.u64().await;
            let length = if self.extended {
                self.u64().await;
                self.u64().await
            } else {
                u64::from(self.u32().await)
            };
            let payload = self.bytes(length as usize).await;
            if kind == REPLY_TYPE_ERROR {
                error = u32::from_be_bytes(payload[..4].try_into().expect("four bytes"));
            }
            chunks.push((kind, payload));
            if flags & REPLY_FLAG_DONE != 0 {
                return Reply { cookie, error, chunks };
            }
        }
    }

    /// Receives the reply to a request that returns no data, and expects it to have succeeded.
    pub async fn expect_done(&mut self, cookie: u64) {
        let reply = self.reply(0).await;
        assert_eq!((reply.cookie, reply.error), (cookie, 0), "{reply:?}");
    }

    /// Reads from the disk and puts the pieces together.
    pub async fn read(&mut self, flags: u16, offset: u64, length: usize) -> Vec<u8> {
        let cookie = self.request(CMD_READ, flags, offset, length as u64).await;
        let reply = self.reply(length).await;
        assert_eq!((reply.cookie, reply.error), (cookie, 0));
        reply.data(offset, length)
    }

    /// Expects the server to close the connection without another byte.
    pub async fn expect_end(&mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await.expect("an orderly end");
        assert!(rest.is_empty(), "{} bytes before the end", rest.len());
    }

    async fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).await.expect("a whole reply");
        bytes
    }

    async fn u16(&mut self) -> u16 {
        self.stream.read_u16().await.expect("a whole reply")
    }

    async fn u32(&mut self) -> u32 {
        self.stream.read_u32().await.expect("a whole reply")
    }

    async fn u64(&mut self) -> u64 {
        self.stream.read_u64().await.expect("a whole reply")
    }
}

impl Reply {
    /// The data of a read, which its chunks must cover exactly once.
    pub fn data(&self, offset: u64, length: usize) -> Vec<u8> {
        if let [(REPLY_TYPE_OFFSET_DATA, data)] = &self.chunks[..]
            && data.len() == length
        {
            return data.clone();
        }
        let mut bytes: Vec<Option<u8>> = vec![None; length];
        let mut put = |at: u64, piece: &mut dyn Iterator<Item = u8>| {
            for (place, byte) in bytes[(at - offset) as usize..].iter_mut().zip(piece) {
                assert_eq!(place.replace(byte), None, "chunks overlap");
            }
        };
        for (kind, payload) in &self.chunks {
            let at = || u64::from_be_bytes(payload[..8].try_into().expect("eight bytes"));
            match *kind {
                REPLY_TYPE_NONE => {}
                REPLY_TYPE_OFFSET_DATA => put(at(), &mut payload[8..].iter().copied()),
                REPLY_TYPE_OFFSET_HOLE => {
                    let hole = u32::from_be_bytes(payload[8..].try_into().expect("four bytes"));
                    put(at(), &mut std::iter::repeat_n(0, hole as usize));
                }
                other => panic!("chunk type {other:#x}"),
            }
        }
        bytes.into_iter().map(|byte| byte.expect("chunks leave a gap")).collect()
    }

    /// Length and flags of the extents of a block status reply.
    pub fn extents(&self) -> Vec<(u64, u64)> {
        let [(kind, payload)] = &self.chunks[..] else { panic!("{self:?}") };
        let number = |bytes: &[u8]| bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        let (fixed, width) = if *kind == REPLY_TYPE_BLOCK_STATUS_EXT { (8, 8) } else { (4, 4) };
        assert_eq!(number(&payload[..4]), u64::from(BASE_ALLOCATION_ID));
        let pairs = payload[fixed..].chunks_exact(2 * width);
        assert!(pairs.remainder().is_empty());
        pairs.map(|pair| (number(&pair[..width]), number(&pair[width..]))).collect()
    }
}

/// A counted string.
pub fn text(name: &str) -> Vec<u8> {
    [&(name.len() as u32).to_be_bytes()[..], name.as_bytes()].concat()
}

/// The data of INFO and GO.
pub fn go(name: &str, infos: &[u16]) -> Vec<u8> {
    let mut data = text(name);
    data.extend((infos.len() as u16).to_be_bytes());
    data.extend(infos.iter().flat_map(|info| info.to_be_bytes()));
    data
}
