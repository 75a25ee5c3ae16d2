//! A small blocking NBD client: fixed newstyle, simple replies, one request at a time.

use anyhow::{Context as _, bail, ensure};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const IHAVEOPT: u64 = 0x4948_4156_454F_5054;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const SIMPLE_REPLY: u32 = 0x6744_6698;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;

pub struct NbdClient {
    stream: UnixStream,
    size: u64,
    cookie: u64,
}

impl NbdClient {
    /// Attaches to an export. A request that gets no answer for `timeout` is an error.
    pub fn connect(socket: &Path, export: &str, timeout: Duration) -> anyhow::Result<NbdClient> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(timeout))?;
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting)?;
        ensure!(&greeting[..8] == b"NBDMAGIC", "not an NBD server");
        // Fixed newstyle, no zeroes.
        stream.write_all(&3_u32.to_be_bytes())?;
        let mut option = Vec::new();
        option.extend_from_slice(&IHAVEOPT.to_be_bytes());
        option.extend_from_slice(&OPT_GO.to_be_bytes());
        option.extend_from_slice(&(export.len() as u32 + 6).to_be_bytes());
        option.extend_from_slice(&(export.len() as u32).to_be_bytes());
        option.extend_from_slice(export.as_bytes());
        option.extend_from_slice(&0_u16.to_be_bytes());
        stream.write_all(&option)?;
        let mut size = None;
        loop {
            let mut head = [0; 20];
            stream.read_exact(&mut head)?;
            let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
            ensure!(head[..8] == OPTION_REPLY.to_be_bytes(), "bad option reply");
            let mut body = vec![0; word(16) as usize];
            stream.read_exact(&mut body)?;
            match word(12) {
                REP_ACK => break,
                REP_INFO if body.len() >= 12 && body[..2] == [0, 0] => {
                    size = Some(u64::from_be_bytes(body[2..10].try_into()?));
                }
                REP_INFO => {}
                error => bail!("export '{export}': error {error:x}: {}", String::from_utf8_lossy(&body)),
            }
        }
        Ok(NbdClient { stream, size: size.context("no size came")?, cookie: 0 })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn read(&mut self, offset: u64, length: u32) -> anyhow::Result<Vec<u8>> {
        self.request(0, offset, length, &[])?;
        let mut data = vec![0; length as usize];
        self.stream.read_exact(&mut data)?;
        Ok(data)
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) -> anyhow::Result<()> {
        self.request(1, offset, data.len() as u32, data)
    }

    pub fn flush(&mut self) -> anyhow::Result<()> {
        self.request(3, 0, 0, &[])
    }

    fn request(&mut self, command: u16, offset: u64, length: u32, data: &[u8]) -> anyhow::Result<()> {
        self.cookie += 1;
        let mut request = Vec::with_capacity(28 + data.len());
        request.extend_from_slice(&REQUEST.to_be_bytes());
        request.extend_from_slice(&0_u16.to_be_bytes());
        request.extend_from_slice(&command.to_be_bytes());
        request.extend_from_slice(&self.cookie.to_be_bytes());
        request.extend_from_slice(&offset.to_be_bytes());
        request.extend_from_slice(&length.to_be_bytes());
        request.extend_from_slice(data);
        self.stream.write_all(&request)?;
        let mut head = [0; 16];
        self.stream.read_exact(&mut head).context("no answer from the NBD server")?;
        ensure!(head[..4] == SIMPLE_REPLY.to_be_bytes(), "not a simple reply");
        ensure!(head[8..16] == self.cookie.to_be_bytes(), "an answer to something else");
        let error = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        ensure!(error == 0, "command {command} at {offset}+{length} failed with error {error}");
        Ok(())
    }
}
