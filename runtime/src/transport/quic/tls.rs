//! Who may connect, and how QUIC is set.
//!
//! A node accepts two kinds of peers: nodes whose certificate is signed by the cluster's authority, and guests whose
//! self-signed certificate it has pinned by its SHA-256. Everybody else ends in the TLS handshake. A dialler accepts
//! only a certificate of the authority for the host that it dialled. TLS 1.3 only, no 0-RTT (replayed packets would
//! be delivered twice); session resumption stays on, and therefore [`Gate::identify`] decides again for each
//! connection: a resumed session must not outlive a pin or a certificate.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use parking_lot::{Mutex, RwLock};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{Mode, QuicConfig, TransportError};
use crate::identity::{Fingerprint, Identity, PeerIdentity, fingerprint};
use crate::transport::Guest;

/// Protocol name in the TLS handshake.
const ALPN: &[u8] = b"meseta/1";
/// Streams a peer may open: control and lanes, and room for later versions.
const MAX_STREAMS: u32 = 16;
/// Largest packet on loopback: quinn sends ten at once, which together must stay under 64 KiB.
const LOOPBACK_MTU: u16 = 6500;
/// The same elsewhere: what an Ethernet frame holds.
const NETWORK_MTU: u16 = 1472;
/// How long a certificate counts as verified a moment ago: longer than a handshake may take.
const FRESH: Duration = Duration::from_secs(10);
/// Certificates remembered as such.
const MAX_FRESH: usize = 4096;
/// Round trip assumed before the first measurement; a lost first packet is sent again after three of these.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// The same of a guest, whose host is on the same machine and may just be starting anew: a guest that comes back asks so
/// often that it waits no longer than as long again as its host is away.
const GUEST_RTT: Duration = Duration::from_millis(20);

/// The guests that may connect.
#[derive(Debug, Default)]
pub(super) struct Pins {
    tables: RwLock<PinTables>,
}

#[derive(Debug, Default)]
struct PinTables {
    by_fingerprint: HashMap<Fingerprint, Guest>,
    by_id: HashMap<Arc<str>, Fingerprint>,
}

impl Pins {
    /// Adds a guest; `true` when this replaces another key of the same id.
    pub(super) fn add(&self, guest: Guest, key: Fingerprint) -> bool {
        let mut tables = self.tables.write();
        let older = tables.by_id.insert(Arc::clone(&guest.id), key);
        let replaced = older.is_some_and(|older| older != key);
        if let Some(older) = older {
            tables.by_fingerprint.remove(&older);
        }
        tables.by_fingerprint.insert(key, guest);
        replaced
    }

    pub(super) fn remove(&self, id: &str) {
        let mut tables = self.tables.write();
        if let Some(fingerprint) = tables.by_id.remove(id) {
            tables.by_fingerprint.remove(&fingerprint);
        }
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.tables.read().by_id.contains_key(id)
    }

    pub(super) fn find(&self, fingerprint: &Fingerprint) -> Option<Guest> {
        self.tables.read().by_fingerprint.get(fingerprint).cloned()
    }
}

/// Who a certificate belongs to.
#[derive(Debug)]
pub(super) enum Who {
    Node(PeerIdentity),
    /// The guest and its key.
    Guest(Guest, Fingerprint),
}

/// Decides about certificates of diallers.
pub(super) struct Gate {
    authority: Arc<dyn ClientCertVerifier>,
    pins: Arc<Pins>,
    algorithms: WebPkiSupportedAlgorithms,
    /// Certificates of nodes that were verified a moment ago, so that the handshake's own work is not done twice. A
    /// session that is resumed later finds nothing here and is verified anew.
    fresh: Mutex<HashMap<Fingerprint, UnixTime>>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl Gate {
    fn new(roots: &Arc<RootCertStore>, pins: Arc<Pins>) -> Result<Self, TransportError> {
        let provider = provider();
        let authority =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider.clone())
                .build()
                .map_err(|source| TransportError::Authorities(source.to_string()))?;
        Ok(Self {
            authority,
            pins,
            algorithms: provider.signature_verification_algorithms,
            fresh: Mutex::default(),
        })
    }

    fn verified_now(&self, certificate: Fingerprint) {
        let mut fresh = self.fresh.lock();
        if fresh.len() >= MAX_FRESH {
            fresh.clear();
        }
        fresh.insert(certificate, UnixTime::now());
    }

    /// Whether the certificate was verified within the last seconds; asked once for each time it was.
    fn was_verified_now(&self, certificate: &Fingerprint) -> bool {
        let verified = self.fresh.lock().remove(certificate);
        let now = UnixTime::now().as_secs();
        verified.is_some_and(|at| now.saturating_sub(at.as_secs()) <= FRESH.as_secs())
    }

    /// Who the peer of an established connection is, by the chain it showed.
    pub(super) fn identify(&self, chain: &[CertificateDer<'_>]) -> Result<Who, String> {
        let (own, others) = chain.split_first().ok_or("no certificate")?;
        let print = fingerprint(own);
        if let Some(guest) = self.pins.find(&print) {
            return Ok(Who::Guest(guest, print));
        }
        if !self.was_verified_now(&print) {
            self.authority
                .verify_client_cert(own, others, UnixTime::now())
                .map_err(|error| error.to_string())?;
        }
        PeerIdentity::read(own)
            .map(Who::Node)
            .map_err(|error| error.to_string())
    }
}

impl ClientCertVerifier for Gate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A guest's certificate is signed by no authority, so none is asked for.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let print = fingerprint(end_entity);
        if self.pins.find(&print).is_some() {
            return Ok(ClientCertVerified::assertion());
        }
        let verified = self
            .authority
            .verify_client_cert(end_entity, intermediates, now)?;
        self.verified_now(print);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::InvalidCertificate(
            CertificateError::BadSignature,
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Decides about certificates of nodes that were dialled, as rustls does by itself, and notes when it was.
#[derive(Debug)]
struct DialledVerifier {
    authority: Arc<WebPkiServerVerifier>,
    gate: Arc<Gate>,
}

impl ServerCertVerifier for DialledVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.authority.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        self.gate.verified_now(fingerprint(end_entity));
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authority.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authority.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authority.supported_verify_schemes()
    }
}

/// Everything quinn is set up with.
pub(super) struct Settings {
    pub(super) endpoint: quinn::EndpointConfig,
    pub(super) server: Option<quinn::ServerConfig>,
    pub(super) client: quinn::ClientConfig,
    pub(super) gate: Arc<Gate>,
}

/// Settings that follow from the configuration.
pub(super) fn settings(config: &QuicConfig, pins: Arc<Pins>) -> Result<Settings, TransportError> {
    let transport = |side| transport(config, side).map(Arc::new);
    let roots = Arc::new(roots(&config.identity)?);
    let gate = Arc::new(Gate::new(&roots, pins)?);
    let server = match config.mode {
        Mode::Listening => Some(server(config, &gate, &transport(Side::Accepts)?)?),
        Mode::DialOnly | Mode::Guest { .. } => None,
    };
    let mut endpoint = endpoint(config.identity.key().secret_der());
    endpoint
        .max_udp_payload_size(largest_packet(config))
        .map_err(|error| TransportError::Setting(error.to_string()))?;
    Ok(Settings {
        endpoint,
        server,
        client: client(config, (&roots, &gate), &transport(Side::Dials)?)?,
        gate,
    })
}

/// Largest packet that is sent or taken. quinn keeps room for some two thousand of them for each socket, so that a larger
/// limit costs every process memory and the zeroing of it.
pub(super) fn largest_packet(config: &QuicConfig) -> u16 {
    if config.address.is_loopback() {
        LOOPBACK_MTU
    } else {
        NETWORK_MTU
    }
}

/// Keys of the endpoint that follow from the node's private key: a process that was started again can tell the peers
/// of its earlier run at once, by stateless resets, that their connections are gone.
fn endpoint(private_key: &[u8]) -> quinn::EndpointConfig {
    let derive = |purpose: &str| {
        let mut seed = digest::Context::new(&digest::SHA256);
        seed.update(purpose.as_bytes());
        seed.update(private_key);
        seed.finish()
    };
    let reset = hmac::Key::new(hmac::HMAC_SHA256, derive("meseta stateless reset").as_ref());
    let mut endpoint = quinn::EndpointConfig::new(Arc::new(reset));
    let mut connection_ids = [0; 8];
    connection_ids.copy_from_slice(&derive("meseta connection ids").as_ref()[..8]);
    let connection_ids = u64::from_le_bytes(connection_ids);
    // Only ids that the endpoint knows as its own are answered with a reset.
    endpoint.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(connection_ids)));
    endpoint
}

fn server(
    config: &QuicConfig,
    gate: &Arc<Gate>,
    transport: &Arc<TransportConfig>,
) -> Result<quinn::ServerConfig, TransportError> {
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::clone(gate) as Arc<dyn ClientCertVerifier>)
        .with_cert_resolver(own_certificate(config));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    // A peer has one connection, so one ticket is all it can use.
    tls.send_tls13_tickets = 1;
    let crypto = QuicServerConfig::try_from(tls)
        .map_err(|error| TransportError::Setting(error.to_string()))?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    server
        .transport_config(Arc::clone(transport))
        // The port that the peer was checked by must stay its port.
        .migration(false);
    Ok(server)
}

fn client(
    config: &QuicConfig,
    (roots, gate): (&Arc<RootCertStore>, &Arc<Gate>),
    transport: &Arc<TransportConfig>,
) -> Result<quinn::ClientConfig, TransportError> {
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(DialledVerifier {
            authority: WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), provider())
                .build()
                .map_err(|source| TransportError::Authorities(source.to_string()))?,
            gate: Arc::clone(gate),
        }))
        .with_client_cert_resolver(own_certificate(config));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = QuicClientConfig::try_from(tls)
        .map_err(|error| TransportError::Setting(error.to_string()))?;
    let mut client = quinn::ClientConfig::new(Arc::new(crypto));
    client.transport_config(Arc::clone(transport));
    Ok(client)
}

/// What either side shows. Key and certificate fit: an [`Identity`] is made of nothing else.
fn own_certificate(config: &QuicConfig) -> Arc<SingleCertAndKey> {
    Arc::new(SingleCertAndKey::from(config.identity.certified()))
}

/// Which side of a connection.
#[derive(Debug, Clone, Copy)]
enum Side {
    Dials,
    Accepts,
}

/// How long a peer may be silent, and how often it is probed. Of two time-outs the shorter one holds for a connection, and
/// one side's probes keep both from it: so who dials decides, and who accepts takes what guests need.
fn silence(config: &QuicConfig, side: Side) -> (Duration, Option<Duration>) {
    match (side, &config.mode) {
        (Side::Accepts, _) => (config.idle_timeout.max(config.guest_idle_timeout), None),
        (Side::Dials, Mode::Guest { .. }) => {
            (config.guest_idle_timeout, Some(config.guest_keep_alive))
        }
        (Side::Dials, Mode::Listening | Mode::DialOnly) => {
            (config.idle_timeout, Some(config.keep_alive))
        }
    }
}

fn transport(config: &QuicConfig, side: Side) -> Result<TransportConfig, TransportError> {
    let (idle, keep_alive) = silence(config, side);
    let idle = IdleTimeout::try_from(idle)
        .map_err(|error| TransportError::Setting(format!("idle_timeout: {error}")))?;
    let initial_rtt = match config.mode {
        Mode::Guest { .. } => GUEST_RTT,
        Mode::Listening | Mode::DialOnly => INITIAL_RTT,
    };
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(keep_alive)
        .max_concurrent_uni_streams(VarInt::from_u32(MAX_STREAMS))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .initial_rtt(initial_rtt)
        .send_fairness(false);
    if config.address.is_loopback() {
        // Loopback takes the largest, so nobody has to find that out with a packet full of padding, which quinn reads byte
        // by byte. Should it take less after all, quinn finds that out by what is lost, and then looks for what it takes.
        let mut discovery = MtuDiscoveryConfig::default();
        discovery
            .upper_bound(LOOPBACK_MTU)
            .minimum_change(LOOPBACK_MTU / 2);
        transport
            .initial_mtu(LOOPBACK_MTU)
            .mtu_discovery_config(Some(discovery));
    }
    Ok(transport)
}

/// The cryptography, AES-128-GCM first: it costs least where the processor has AES.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

fn roots(identity: &Identity) -> Result<RootCertStore, TransportError> {
    let mut roots = RootCertStore::empty();
    for authority in identity.authorities() {
        roots.add(authority.clone())?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::CertificateAuthority;
    use crate::pid::Address;
    use crate::transport::Incarnation;

    #[test]
    fn who_dials_says_how_long_a_peer_may_be_silent_and_probes_it() {
        let host = Address::new("127.0.0.1", 5051);
        let ca = CertificateAuthority::create("test").unwrap();
        let identity = Identity::issue(&ca, &["127.0.0.1".to_owned()], &["agent"]).unwrap();
        let mut config = QuicConfig::new(identity, host.clone(), Incarnation(1));
        let seconds = Duration::from_secs;
        for mode in [Mode::Listening, Mode::DialOnly] {
            config.mode = mode;
            let node = silence(&config, Side::Dials);
            assert_eq!(node, (seconds(5), Some(seconds(1))));
        }
        let accepts = silence(&config, Side::Accepts);
        assert_eq!(accepts, (seconds(30), None), "what guests need");
        config.mode = Mode::Guest { host };
        let guest = silence(&config, Side::Dials);
        assert_eq!(guest, (seconds(30), Some(seconds(10))));
    }
}
