//! The handshake of one connection: answers options until the client picks an export or leaves.
//!
//! All of it is bounded: each option's data, the number of options, and the time the client takes. What the server
//! itself takes to look an export up is not counted against the client.

use std::future::Future;
use std::io;
use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::SessionContext;
use crate::export::{Export, ExportError};
use crate::protocol::option::{
    CLIENT_FLAGS_BYTES, ClientFlags, ClientOption, HandshakeError, InfoRequest, MetaContextRequest,
    OPTION_HEADER_BYTES, OptionHeader,
};
use crate::protocol::option_reply::{OptionReply, export_name, greeting};
use crate::protocol::reply::ReplyStyle;
use crate::protocol::*;

/// A list is sent in pieces of about this size.
const LIST_PIECE_BYTES: usize = 64 << 10;

/// What the client chose.
pub(crate) struct Negotiated {
    pub(crate) export: Rc<dyn Export>,
    pub(crate) style: ReplyStyle,
    pub(crate) block_status: bool,
}

pub(crate) enum Outcome {
    Transmission {
        name: String,
        negotiated: Negotiated,
    },
    /// The client left, in a way the protocol allows.
    Ended,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Protocol(#[from] HandshakeError),
    #[error("the handshake took longer than {0:?}")]
    Timeout(std::time::Duration),
    #[error("export {0:?}: {1}")]
    Export(String, ExportError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Error {
    pub(crate) fn is_io(&self) -> bool {
        matches!(self, Error::Io(_))
    }
}

/// A handshake under way.
pub(crate) struct Handshake<'a, S> {
    context: &'a SessionContext,
    stream: &'a mut S,
    deadline: Instant,
    style: ReplyStyle,
    /// The export for which `base:allocation` was selected.
    allocation_for: Option<String>,
    /// The export looked up last: INFO and GO usually follow each other, and must then agree.
    last: Option<(String, Rc<dyn Export>)>,
    out: Vec<u8>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Handshake<'a, S> {
    pub(crate) fn new(context: &'a SessionContext, stream: &'a mut S) -> Self {
        Handshake {
            context,
            stream,
            deadline: Instant::now() + context.config.handshake_timeout,
            style: ReplyStyle::Simple,
            allocation_for: None,
            last: None,
            out: Vec::new(),
        }
    }

    pub(crate) async fn run(mut self) -> Result<Outcome, Error> {
        self.out.extend_from_slice(&greeting());
        self.send().await?;
        let mut flags = [0; CLIENT_FLAGS_BYTES];
        self.receive(&mut flags).await?;
        let flags = ClientFlags::decode(flags)?;
        for _ in 0..MAX_OPTIONS {
            let Some(header) = self.receive_header().await? else {
                return Ok(Outcome::Ended);
            };
            let Some(data) = self.receive_data(header).await? else {
                self.refuse(header.option, REP_ERR_TOO_BIG, "the option carries too much data").await?;
                continue;
            };
            if let Some(outcome) = self.answer(header.option, &data, flags).await? {
                return Ok(outcome);
            }
        }
        Err(HandshakeError::TooManyOptions.into())
    }

    async fn answer(
        &mut self,
        option: u32,
        data: &[u8],
        flags: ClientFlags,
    ) -> Result<Option<Outcome>, Error> {
        let parsed = match ClientOption::decode(option, data) {
            Ok(parsed) => parsed,
            // EXPORT_NAME is the one option that has no way to answer an error.
            Err(error) if option == OPT_EXPORT_NAME => {
                return Err(HandshakeError::BadExportName(error).into());
            }
            Err(error) => {
                if option == OPT_SET_META_CONTEXT {
                    self.allocation_for = None;
                }
                self.refuse(option, REP_ERR_INVALID, &error.to_string()).await?;
                return Ok(None);
            }
        };
        match parsed {
            ClientOption::ExportName(name) => return self.export_name(name, flags).await.map(Some),
            ClientOption::Go(request) => return self.info(option, request, true).await,
            ClientOption::Info(request) => return self.info(option, request, false).await,
            ClientOption::Abort => {
                self.reply(option).ack();
                // The client may be gone without waiting for it.
                let _ = self.send().await;
                return Ok(Some(Outcome::Ended));
            }
            ClientOption::List => self.list(option).await?,
            ClientOption::StructuredReply => self.structured_reply(option),
            ClientOption::ExtendedHeaders => {
                self.style = ReplyStyle::Extended;
                self.reply(option).ack();
            }
            ClientOption::ListMetaContext(request) => self.list_meta_context(option, request).await,
            ClientOption::SetMetaContext(request) => self.set_meta_context(option, request).await,
            ClientOption::StartTls => {
                self.reply(option).error(REP_ERR_UNSUP, "TLS is not supported");
            }
            ClientOption::Unknown(unknown) => {
                self.reply(option).error(REP_ERR_UNSUP, &format!("unknown option {unknown}"));
            }
        }
        self.send().await?;
        Ok(None)
    }

    fn structured_reply(&mut self, option: u32) {
        if self.style == ReplyStyle::Extended {
            let mut reply = self.reply(option);
            return reply.error(REP_ERR_EXT_HEADER_REQD, "extended headers are negotiated already");
        }
        self.style = ReplyStyle::Structured;
        self.reply(option).ack();
    }

    async fn export_name(&mut self, name: String, flags: ClientFlags) -> Result<Outcome, Error> {
        if self.style == ReplyStyle::Extended {
            return Err(HandshakeError::ExportNameAfterExtendedHeaders.into());
        }
        let export = self.lookup(&name).await.map_err(|error| Error::Export(name.clone(), error))?;
        export_name(export.size(), self.transmission_flags(&*export), flags.no_zeroes, &mut self.out);
        self.send().await?;
        Ok(self.transmission(name, export))
    }

    async fn info(&mut self, option: u32, request: InfoRequest, go: bool) -> Result<Option<Outcome>, Error> {
        let InfoRequest { name, infos } = request;
        let export = match self.lookup(&name).await {
            Ok(export) => export,
            Err(error) => {
                self.refuse_export(option, &name, error).await?;
                return Ok(None);
            }
        };
        let flags = self.transmission_flags(&*export);
        let sizes = export.block_sizes().legal();
        let mut reply = self.reply(option);
        reply.info_export(export.size(), flags);
        if infos.contains(&INFO_NAME) {
            reply.info_name(&name);
        }
        if infos.contains(&INFO_DESCRIPTION) {
            reply.info_description(&export.description());
        }
        reply.info_block_size(sizes);
        if sizes.minimum > 1 && !infos.contains(&INFO_BLOCK_SIZE) {
            reply.error(
                REP_ERR_BLOCK_SIZE_REQD,
                &format!("requests must be aligned to {} bytes", sizes.minimum),
            );
            self.send().await?;
            return Ok(None);
        }
        reply.ack();
        self.send().await?;
        Ok(go.then(|| self.transmission(name, export)))
    }

    fn transmission(&mut self, name: String, export: Rc<dyn Export>) -> Outcome {
        let block_status = self.style.chunked() && self.allocation_for.as_ref() == Some(&name);
        Outcome::Transmission { name, negotiated: Negotiated { export, style: self.style, block_status } }
    }

    fn transmission_flags(&self, export: &dyn Export) -> u16 {
        let mut flags =
            FLAG_HAS_FLAGS | FLAG_SEND_FLUSH | FLAG_SEND_FUA | FLAG_SEND_CACHE | FLAG_CAN_MULTI_CONN;
        if export.read_only() {
            flags |= FLAG_READ_ONLY;
        } else {
            flags |= FLAG_SEND_TRIM | FLAG_SEND_WRITE_ZEROES | FLAG_SEND_FAST_ZERO;
        }
        if self.style.chunked() {
            flags |= FLAG_SEND_DF;
        }
        flags
    }

    async fn list(&mut self, option: u32) -> Result<(), Error> {
        let exports = match self.untimed(self.context.exports.list()).await {
            Ok(exports) => exports,
            Err(error) => {
                let kind = error_kind(&error);
                self.reply(option).error(kind, &error.to_string());
                return Ok(());
            }
        };
        for export in exports.iter().filter(|export| export.name.len() <= MAX_STRING_BYTES) {
            self.reply(option).server(&export.name, &export.description);
            if self.out.len() >= LIST_PIECE_BYTES {
                self.send().await?;
            }
        }
        self.reply(option).ack();
        Ok(())
    }

    async fn list_meta_context(&mut self, option: u32, request: MetaContextRequest) {
        if !self.meta_context_export(option, &request.name).await {
            return;
        }
        let mut reply = self.reply(option);
        if request.lists_allocation() {
            // In a list the number means nothing and is to be zero.
            reply.meta_context(0, BASE_ALLOCATION);
        }
        reply.ack();
    }

    async fn set_meta_context(&mut self, option: u32, request: MetaContextRequest) {
        self.allocation_for = None;
        if !self.meta_context_export(option, &request.name).await {
            return;
        }
        let selected = request.sets_allocation();
        let mut reply = self.reply(option);
        if selected {
            reply.meta_context(BASE_ALLOCATION_ID, BASE_ALLOCATION);
        }
        reply.ack();
        self.allocation_for = selected.then_some(request.name);
    }

    /// Whether contexts can be negotiated for an export; answers if not.
    async fn meta_context_export(&mut self, option: u32, name: &str) -> bool {
        if !self.style.chunked() {
            self.reply(option).error(REP_ERR_INVALID, "metadata contexts need structured replies");
            return false;
        }
        match self.lookup(name).await {
            Ok(_) => true,
            Err(error) => {
                let kind = error_kind(&error);
                self.reply(option).error(kind, &error.to_string());
                false
            }
        }
    }

    async fn lookup(&mut self, name: &str) -> Result<Rc<dyn Export>, ExportError> {
        if let Some((_, export)) = self.last.as_ref().filter(|(last, _)| last == name) {
            return Ok(Rc::clone(export));
        }
        let export = self.untimed(self.context.exports.lookup(name)).await?;
        self.last = Some((name.to_owned(), Rc::clone(&export)));
        Ok(export)
    }

    /// Runs our own part of the work without charging the client for the time.
    async fn untimed<T>(&mut self, work: impl Future<Output = T>) -> T {
        let begin = Instant::now();
        let result = work.await;
        self.deadline += begin.elapsed();
        result
    }

    async fn refuse_export(&mut self, option: u32, name: &str, error: ExportError) -> Result<(), Error> {
        tracing::info!(peer = %self.context.peer, export = name, %error, "refused an export");
        self.refuse(option, error_kind(&error), &error.to_string()).await
    }

    async fn refuse(&mut self, option: u32, kind: u32, message: &str) -> Result<(), Error> {
        self.reply(option).error(kind, message);
        self.send().await
    }

    fn reply(&mut self, option: u32) -> OptionReply<'_> {
        OptionReply { option, out: &mut self.out }
    }

    /// The next option's header, or `None` where the client left instead.
    async fn receive_header(&mut self) -> Result<Option<OptionHeader>, Error> {
        let mut header = [0; OPTION_HEADER_BYTES];
        match self.receive(&mut header).await {
            Ok(()) => Ok(Some(OptionHeader::decode(&header)?)),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An option's data, or `None` if it was too much and was skipped.
    async fn receive_data(&mut self, header: OptionHeader) -> Result<Option<Vec<u8>>, Error> {
        let length = header.length as usize;
        if length <= MAX_OPTION_BYTES {
            let mut data = vec![0; length];
            self.receive(&mut data).await?;
            return Ok(Some(data));
        }
        let mut scratch = vec![0; MAX_OPTION_BYTES];
        let mut left = length;
        while left > 0 {
            let part = left.min(scratch.len());
            self.receive(&mut scratch[..part]).await?;
            left -= part;
        }
        Ok(None)
    }

    async fn receive(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        let timeout = Error::Timeout(self.context.config.handshake_timeout);
        timeout_at(self.deadline, self.stream.read_exact(bytes)).await.map_err(|_| timeout)??;
        Ok(())
    }

    async fn send(&mut self) -> Result<(), Error> {
        let timeout = Error::Timeout(self.context.config.handshake_timeout);
        timeout_at(self.deadline, self.stream.write_all(&self.out)).await.map_err(|_| timeout)??;
        self.out.clear();
        Ok(())
    }
}

/// The option reply that stands for a failure to open or list exports.
fn error_kind(error: &ExportError) -> u32 {
    match error {
        ExportError::NotFound(_) | ExportError::Unavailable(_) => REP_ERR_UNKNOWN,
        ExportError::Denied(_) => REP_ERR_POLICY,
        ExportError::ShuttingDown => REP_ERR_SHUTDOWN,
    }
}
