//! The handshake as a client speaks it: its flags, and options with their data.
//!
//! ```text
//!   server: INIT_PASSWD, OPTION_MAGIC, handshake flags
//!   client: client flags
//!   client: OPTION_MAGIC, option, length, data   ─┐ repeated; each is answered
//!   server: replies to the option                ─┘ until GO, EXPORT_NAME or ABORT
//! ```

use super::*;

/// Bytes of the client's flags.
pub const CLIENT_FLAGS_BYTES: usize = 4;
/// Bytes before an option's data.
pub const OPTION_HEADER_BYTES: usize = 16;

/// A violation after which the two sides cannot go on; the connection is closed with this as the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    #[error("unknown client flags {0:#x}")]
    UnknownFlags(u32),
    #[error("bad option magic {0:#018x}")]
    BadMagic(u64),
    #[error("option {option} carries {length} bytes, more than {MAX_SKIP_BYTES}")]
    OptionTooLong { option: u32, length: u32 },
    #[error("more than {MAX_OPTIONS} options")]
    TooManyOptions,
    #[error("export name not acceptable: {0}")]
    BadExportName(InvalidOption),
    #[error("asked for an export by EXPORT_NAME after negotiating extended headers")]
    ExportNameAfterExtendedHeaders,
}

/// What the client said it supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientFlags {
    pub fixed_newstyle: bool,
    pub no_zeroes: bool,
}

impl ClientFlags {
    pub fn decode(bytes: [u8; CLIENT_FLAGS_BYTES]) -> Result<ClientFlags, HandshakeError> {
        let flags = u32::from_be_bytes(bytes);
        let known = u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
        if flags & !known != 0 {
            return Err(HandshakeError::UnknownFlags(flags));
        }
        Ok(ClientFlags {
            fixed_newstyle: flags & u32::from(FLAG_FIXED_NEWSTYLE) != 0,
            no_zeroes: flags & u32::from(FLAG_NO_ZEROES) != 0,
        })
    }
}

/// An option's number and the length of the data after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionHeader {
    pub option: u32,
    pub length: u32,
}

impl OptionHeader {
    pub fn decode(bytes: &[u8; OPTION_HEADER_BYTES]) -> Result<OptionHeader, HandshakeError> {
        let mut reader = Reader(bytes);
        let magic = reader.u64().unwrap_or_default();
        if magic != OPTION_MAGIC {
            return Err(HandshakeError::BadMagic(magic));
        }
        let option = reader.u32().unwrap_or_default();
        let length = reader.u32().unwrap_or_default();
        if u64::from(length) > MAX_SKIP_BYTES {
            return Err(HandshakeError::OptionTooLong { option, length });
        }
        Ok(OptionHeader { option, length })
    }
}

/// An option, its data parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientOption {
    ExportName(String),
    Abort,
    List,
    StartTls,
    Info(InfoRequest),
    Go(InfoRequest),
    StructuredReply,
    ExtendedHeaders,
    ListMetaContext(MetaContextRequest),
    SetMetaContext(MetaContextRequest),
    Unknown(u32),
}

/// The data of INFO and GO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfoRequest {
    pub name: String,
    pub infos: Vec<u16>,
}

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaContextRequest {
    pub name: String,
    pub queries: Vec<Vec<u8>>,
}

impl MetaContextRequest {
    /// Whether the queries, as sent with LIST, match `base:allocation`.
    pub fn lists_allocation(&self) -> bool {
        self.queries.is_empty()
            || self.queries.iter().any(|query| query == b"base:")
            || self.sets_allocation()
    }

    /// Whether the queries, as sent with SET, select `base:allocation`.
    pub fn sets_allocation(&self) -> bool {
        self.queries.iter().any(|query| query == BASE_ALLOCATION.as_bytes())
    }
}

/// An option that is refused; the handshake goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOption {
    #[error("the option's data ends early")]
    Truncated,
    #[error("the option's data has {0} bytes too many")]
    Trailing(usize),
    #[error("a string of {0} bytes is longer than {MAX_STRING_BYTES}")]
    StringTooLong(usize),
    #[error("a name is not UTF-8 without NUL")]
    NotText,
}

impl ClientOption {
    /// Parses the data of an option, at most [`MAX_OPTION_BYTES`] of it.
    pub fn decode(option: u32, data: &[u8]) -> Result<ClientOption, InvalidOption> {
        let mut reader = Reader(data);
        let parsed = match option {
            OPT_EXPORT_NAME => ClientOption::ExportName(reader.text(data.len())?),
            // The document asks servers to ignore whatever data comes with an abort.
            OPT_ABORT => return Ok(ClientOption::Abort),
            OPT_LIST => ClientOption::List,
            OPT_STARTTLS => ClientOption::StartTls,
            OPT_INFO => ClientOption::Info(InfoRequest::decode(&mut reader)?),
            OPT_GO => ClientOption::Go(InfoRequest::decode(&mut reader)?),
            OPT_STRUCTURED_REPLY => ClientOption::StructuredReply,
            OPT_EXTENDED_HEADERS => ClientOption::ExtendedHeaders,
            OPT_LIST_META_CONTEXT => ClientOption::ListMetaContext(MetaContextRequest::decode(&mut reader)?),
            OPT_SET_META_CONTEXT => ClientOption::SetMetaContext(MetaContextRequest::decode(&mut reader)?),
            unknown => return Ok(ClientOption::Unknown(unknown)),
        };
        match reader.0.len() {
            0 => Ok(parsed),
            trailing => Err(InvalidOption::Trailing(trailing)),
        }
    }
}

impl InfoRequest {
    fn decode(reader: &mut Reader<'_>) -> Result<InfoRequest, InvalidOption> {
        let name = reader.counted_text()?;
        let count = reader.u16().ok_or(InvalidOption::Truncated)?;
        // Bounded by the data, not by the count: each step takes two bytes of it.
        let infos =
            (0..count).map(|_| reader.u16().ok_or(InvalidOption::Truncated)).collect::<Result<_, _>>()?;
        Ok(InfoRequest { name, infos })
    }
}

impl MetaContextRequest {
    fn decode(reader: &mut Reader<'_>) -> Result<MetaContextRequest, InvalidOption> {
        let name = reader.counted_text()?;
        let count = reader.u32().ok_or(InvalidOption::Truncated)?;
        let mut queries = Vec::new();
        for _ in 0..count {
            queries.push(reader.counted_bytes()?.to_vec());
        }
        Ok(MetaContextRequest { name, queries })
    }
}

/// Takes big-endian values off the front of a slice.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], InvalidOption> {
        if length > MAX_STRING_BYTES {
            return Err(InvalidOption::StringTooLong(length));
        }
        let (head, rest) = self.0.split_at_checked(length).ok_or(InvalidOption::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    fn text(&mut self, length: usize) -> Result<String, InvalidOption> {
        let bytes = self.bytes(length)?;
        let text = std::str::from_utf8(bytes).map_err(|_| InvalidOption::NotText)?;
        if text.contains('\0') {
            return Err(InvalidOption::NotText);
        }
        Ok(text.to_owned())
    }

    fn counted_bytes(&mut self) -> Result<&'a [u8], InvalidOption> {
        let length = self.u32().ok_or(InvalidOption::Truncated)?;
        self.bytes(length as usize)
    }

    fn counted_text(&mut self) -> Result<String, InvalidOption> {
        let length = self.u32().ok_or(InvalidOption::Truncated)?;
        self.text(length as usize)
    }
}

#[cfg(test)]
mod tests;
