//! Why a connection ended, in words, and the codes that say so on the wire.

use quinn::ConnectionError;

/// Codes of an application close. Numbers are the wire's and never change.
pub(super) const CODE_NORMAL: u32 = 0;
pub(super) const CODE_PROTOCOL: u32 = 1;
pub(super) const CODE_OVERLOADED: u32 = 2;
pub(super) const CODE_WRONG_PEER: u32 = 3;
pub(super) const CODE_SHUTDOWN: u32 = 4;
pub(super) const CODE_GONE: u32 = 5;

/// QUIC carries TLS alerts as this plus the alert's number (RFC 9001 section 4.8).
const TLS_ALERT_BASE: u64 = 0x100;

/// A sentence for logs and users.
pub(super) fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TransportError(e) => match alert(u64::from(e.code)) {
            Some(text) => format!("the peer's {text}"),
            None if e.reason.is_empty() => e.code.to_string(),
            None => e.reason.clone(),
        },
        ConnectionError::ConnectionClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason);
            match alert(u64::from(close.error_code)) {
                Some(text) => format!("the peer refuses us: our {text}"),
                None if reason.is_empty() => format!("the peer refuses us: {}", close.error_code),
                None => format!("the peer refuses us: {reason}"),
            }
        }
        ConnectionError::ApplicationClosed(close) if close.reason.is_empty() => "closed by the peer".into(),
        ConnectionError::ApplicationClosed(close) => {
            format!("closed by the peer: {}", String::from_utf8_lossy(&close.reason))
        }
        ConnectionError::TimedOut => "no sign of life from the peer".into(),
        ConnectionError::LocallyClosed => "closed here".into(),
        ConnectionError::Reset => "the peer has forgotten the session (it restarted)".into(),
        ConnectionError::VersionMismatch => "the peer speaks another version of QUIC".into(),
        ConnectionError::CidsExhausted => "no connection ids are left".into(),
    }
}

/// Whether one end does not accept the other's certificate: the same again ends the same way.
pub(super) fn is_rejection(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::TransportError(e) => alert(u64::from(e.code)).is_some(),
        ConnectionError::ConnectionClosed(close) => alert(u64::from(close.error_code)).is_some(),
        _ => false,
    }
}

/// Alerts about certificates (RFC 8446 section 6).
fn alert(code: u64) -> Option<&'static str> {
    Some(match code.checked_sub(TLS_ALERT_BASE)? {
        42 | 43 => "certificate is not usable",
        44 => "certificate is revoked",
        45 => "certificate expired, or a clock is wrong",
        48 => "certificate is signed by another cluster's CA",
        116 => "certificate is missing",
        120 => "protocol is not Nacre's",
        _ => return None,
    })
}
