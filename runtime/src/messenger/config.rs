//! Settings of a messenger, and the QUIC settings that follow from them.

use super::congestion::LanWindow;
use crate::tls::{self, Credentials};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, ClientConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig,
    TransportConfig, VarInt,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// UDP payload where the path allows it. quinn sends 10 segments a call and a call takes 65,527 bytes: above 6,552
/// segmentation offload fails once and is then off for good.
const MTU_BYTES: u16 = 6500;
const UDP_PAYLOAD_BYTES_MAX: u16 = 6552;
/// Kernel buffers of the socket, each direction.
pub(super) const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// One stream per lane, and some to spare for lanes of later versions. Each may hold one incomplete frame.
const STREAMS_MAX: u32 = 8;
/// What a session may have sent or be about to send without an acknowledgement.
const SEND_WINDOW_BYTES: u64 = 8 << 20;

/// How a messenger behaves. [`MessengerConfig::new`] has the values meant for use.
#[derive(Clone, Debug)]
pub struct MessengerConfig {
    pub credentials: Credentials,
    /// `None`: dials only (clients).
    pub listen: Option<SocketAddr>,
    /// An attempt to connect gives up after this.
    pub handshake_timeout: Duration,
    /// An idle session shows that it is alive this often.
    pub keep_alive: Duration,
    /// A session without a sign of life for this long is over.
    pub idle_timeout: Duration,
    /// A session whose peer leaves more than this unread is closed.
    pub send_queue_bytes_max: usize,
    /// Received and not yet taken by the reactor; above it, reading stops and flow control pushes back.
    pub inbox_bytes_max: usize,
    /// First and longest pause before dialing an address that failed.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    /// Handshakes of others at a time: above the first, peers must prove their address; above the second, refused.
    pub handshakes_unproven_max: usize,
    pub handshakes_max: usize,
    /// Sessions at a time, both kinds.
    pub sessions_max: usize,
}

impl MessengerConfig {
    pub fn new(credentials: Credentials, listen: Option<SocketAddr>) -> MessengerConfig {
        MessengerConfig {
            credentials,
            listen,
            handshake_timeout: Duration::from_secs(2),
            keep_alive: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(10),
            send_queue_bytes_max: 256 << 20,
            inbox_bytes_max: 64 << 20,
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            handshakes_unproven_max: 64,
            handshakes_max: 512,
            sessions_max: 16_384,
        }
    }

    /// Where the socket is bound.
    pub(super) fn bind_address(&self) -> SocketAddr {
        self.listen.unwrap_or_else(|| {
            let is_v6 = |address: &str| matches!(address.parse(), Ok(SocketAddr::V6(_)));
            if self.credentials.monitors.iter().any(|m| is_v6(&m.address)) {
                (Ipv6Addr::UNSPECIFIED, 0).into()
            } else {
                (Ipv4Addr::UNSPECIFIED, 0).into()
            }
        })
    }
}

/// quinn's settings, for peers on this machine (`near`) and elsewhere (`far`).
pub(super) struct Quic {
    pub endpoint: EndpointConfig,
    pub client_near: ClientConfig,
    pub client_far: ClientConfig,
    pub server_near: Arc<ServerConfig>,
    pub server_far: Arc<ServerConfig>,
}

impl Quic {
    /// `socket_buffer_bytes`: what the kernel really granted, which flow control must stay below.
    pub fn new(config: &MessengerConfig, socket_buffer_bytes: usize) -> Result<Quic, String> {
        let near = Arc::new(transport(config, socket_buffer_bytes, true));
        let far = Arc::new(transport(config, socket_buffer_bytes, false));

        let crypto = tls::client_config(&config.credentials)?;
        let crypto = Arc::new(QuicClientConfig::try_from(crypto).map_err(|e| e.to_string())?);
        let mut client_near = ClientConfig::new(crypto.clone());
        client_near.transport_config(near.clone());
        let mut client_far = ClientConfig::new(crypto);
        client_far.transport_config(far.clone());

        let crypto = tls::server_config(&config.credentials)?;
        let crypto = Arc::new(QuicServerConfig::try_from(crypto).map_err(|e| e.to_string())?);
        let mut server_far = ServerConfig::with_crypto(crypto);
        server_far.max_incoming(config.handshakes_max);
        server_far.incoming_buffer_size_total(16 << 20);
        server_far.migration(false);
        let mut server_near = server_far.clone();
        server_far.transport_config(far);
        server_near.transport_config(near);

        let mut endpoint = EndpointConfig::default();
        endpoint.max_udp_payload_size(UDP_PAYLOAD_BYTES_MAX).map_err(|e| e.to_string())?;
        Ok(Quic {
            endpoint,
            client_near,
            client_far,
            server_near: Arc::new(server_near),
            server_far: Arc::new(server_far),
        })
    }
}

/// Whether packets to `peer` stay on this machine, whose own address on that path is `local`.
pub(super) fn is_near(peer: IpAddr, local: Option<IpAddr>) -> bool {
    let peer = peer.to_canonical();
    peer.is_loopback() || local.is_some_and(|local| local.to_canonical() == peer)
}

fn transport(config: &MessengerConfig, socket_buffer_bytes: usize, near: bool) -> TransportConfig {
    // A peer may fill three quarters of the socket's buffer, and one stream two thirds of that.
    let window = (socket_buffer_bytes / 4 * 3).clamp(96 << 10, 3 << 20) as u32;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX))
        .receive_window(VarInt::from_u32(window))
        .stream_receive_window(VarInt::from_u32(window / 3 * 2))
        .send_window(SEND_WINDOW_BYTES)
        // Lanes have priorities; within one priority there is one stream.
        .send_fairness(false)
        // The first guess at the round trip, which paces the first packets and times their repetition.
        .initial_rtt(Duration::from_millis(10))
        .keep_alive_interval(Some(config.keep_alive))
        .max_idle_timeout(IdleTimeout::try_from(config.idle_timeout).ok())
        .datagram_receive_buffer_size(None)
        .allow_spin(false)
        .enable_segmentation_offload(true)
        .congestion_controller_factory(Arc::new(LanWindow::default()));
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(MTU_BYTES);
    transport.mtu_discovery_config(Some(discovery));
    if near {
        transport.initial_mtu(MTU_BYTES);
    }
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(10)).max_ack_delay(Some(Duration::from_millis(2)));
    transport.ack_frequency_config(Some(acks));
    transport
}
