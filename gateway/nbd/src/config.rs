//! The server's bounds and timeouts.

use std::time::Duration;

use crate::protocol::MAX_PAYLOAD_BYTES;
use crate::session::budget::REQUEST_BYTES;

/// The most that a single request accounts for.
const LARGEST_REQUEST_BYTES: usize = MAX_PAYLOAD_BYTES as usize + REQUEST_BYTES;

/// How much a server admits, and how long it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Further connections are closed at once.
    pub connections_max: usize,
    /// Payload bytes one connection may have in flight, in either direction. Reading from its socket pauses above.
    pub connection_bytes_max: usize,
    /// Requests one connection may have in flight.
    pub connection_requests_max: usize,
    /// Payload bytes in flight over all connections.
    pub server_bytes_max: usize,
    /// Time a client has to finish the handshake, not counting the server's own work.
    pub handshake_timeout: Duration,
    /// A client that moves no byte for this long while it owes us some is closed if other connections wait for the
    /// memory it holds, or if its connection is being closed anyway. A paused client alone is left in peace.
    pub stall_timeout: Duration,
    /// Time that requests in flight get to finish when the server stops.
    pub drain_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            // Linux clients open up to 16 connections per device; this serves a few dozen busy devices.
            connections_max: 512,
            // Two payloads of the largest size, or all 1024 requests at 64 KiB.
            connection_bytes_max: 64 << 20,
            // Above the queue depth of any common client (Linux: 128 a connection, fio: what it is told).
            connection_requests_max: 1024,
            // Eight busy connections before they wait for each other.
            server_bytes_max: 512 << 20,
            handshake_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// A configuration that could not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{name} is {value}, but must be at least {least}")]
    TooSmall { name: &'static str, value: usize, least: usize },
    #[error("{name} is {value}, but must be at most {most}")]
    TooLarge { name: &'static str, value: usize, most: usize },
    #[error("{name} must not be zero")]
    Zero { name: &'static str },
}

impl Config {
    /// Checks that the largest request can always be admitted: below that, one would wait for ever.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let least = [
            ("connections_max", self.connections_max, 1),
            ("connection_requests_max", self.connection_requests_max, 1),
            ("connection_bytes_max", self.connection_bytes_max, LARGEST_REQUEST_BYTES),
            ("server_bytes_max", self.server_bytes_max, self.connection_bytes_max),
        ];
        for (name, value, least) in least {
            if value < least {
                return Err(ConfigError::TooSmall { name, value, least });
            }
        }
        let most = tokio::sync::Semaphore::MAX_PERMITS;
        if self.server_bytes_max > most {
            return Err(ConfigError::TooLarge {
                name: "server_bytes_max",
                value: self.server_bytes_max,
                most,
            });
        }
        let times = [
            ("handshake_timeout", self.handshake_timeout),
            ("stall_timeout", self.stall_timeout),
            ("drain_timeout", self.drain_timeout),
        ];
        match times.into_iter().find(|(_, time)| time.is_zero()) {
            Some((name, _)) => Err(ConfigError::Zero { name }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn a_budget_below_one_request_is_refused() {
        let config = Config { connection_bytes_max: 1 << 20, ..Config::default() };
        assert!(matches!(config.validate(), Err(ConfigError::TooSmall { name: "connection_bytes_max", .. })));
        let config = Config { server_bytes_max: 33 << 20, ..Config::default() };
        assert!(matches!(config.validate(), Err(ConfigError::TooSmall { name: "server_bytes_max", .. })));
        let config = Config { stall_timeout: Duration::ZERO, ..Config::default() };
        assert_eq!(config.validate(), Err(ConfigError::Zero { name: "stall_timeout" }));
    }
}
