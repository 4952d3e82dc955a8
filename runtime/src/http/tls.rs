//! TLS of the HTTP port, and of clients that look at one.
//!
//! One port takes both: a client that begins with a TLS handshake gets TLS, another is served in plain. What may be done
//! in plain is up to [`super::access`]. Unlike between nodes nobody needs a certificate to connect, and TLS 1.2 is taken,
//! since tools of others that speak nothing newer are still about.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::identity::Identity;

/// What a TLS handshake begins with; no request does.
const HANDSHAKE: u8 = 0x16;

/// Why TLS cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be used.
    #[error("{file} cannot be used for TLS: {why}")]
    File {
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// Certificate and key do not make TLS.
    #[error("certificate and key of the HTTP port: {0}")]
    Unusable(#[from] rustls::Error),
}

/// The certificate that the HTTP port shows, with its key.
#[derive(Debug)]
pub struct HttpCertificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Clone for HttpCertificate {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |why: String| TlsError::File {
        file: path.display().to_string(),
        why,
    };
    let all = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| bad(error.to_string()))?;
    if all.is_empty() {
        return Err(bad("it holds no certificate".to_owned()));
    }
    Ok(all)
}

impl HttpCertificate {
    /// Of PEM files: the chain, the node's own certificate first, and its key.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn read(chain: &Path, key: &Path) -> Result<Self, TlsError> {
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::File {
            file: key.display().to_string(),
            why: error.to_string(),
        })?;
        let read = Self {
            chain: certificates(chain)?,
            key: private,
        };
        read.acceptor()?;
        Ok(read)
    }

    /// That of a node.
    pub(crate) fn of(identity: &Identity) -> Self {
        Self {
            chain: identity.chain().to_vec(),
            key: identity.key().clone_key(),
        }
    }

    fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// The TLS side of a server.
pub(super) struct Tls(TlsAcceptor);

impl Tls {
    pub(super) fn new(certificate: &HttpCertificate) -> Result<Self, TlsError> {
        Ok(Self(certificate.acceptor()?))
    }

    /// The client's connection as it wants it. It may be silent for ever; a handshake that has begun ends within this time.
    pub(super) async fn welcome(
        tls: Option<&Self>,
        stream: TcpStream,
        patience: Duration,
    ) -> io::Result<Wire> {
        let Some(Self(acceptor)) = tls else {
            return Ok(Wire::Plain(stream));
        };
        let mut first = [0];
        // Nothing at all, for a client that has ended, is left to the server.
        if stream.peek(&mut first).await? == 1 && first[0] == HANDSHAKE {
            let late = |_| io::Error::from(io::ErrorKind::TimedOut);
            let secured = tokio::time::timeout(patience, acceptor.accept(stream));
            let secured = secured.await.map_err(late)??;
            return Ok(Wire::Tls(Box::new(secured)));
        }
        Ok(Wire::Plain(stream))
    }
}

/// A client's connection.
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<server::TlsStream<TcpStream>>),
}

impl Wire {
    pub(super) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

/// Calls the same of whichever it is.
macro_rules! either {
    ($wire:expr, $of:ident, $inner:ident => $what:expr) => {
        match $wire.get_mut() {
            $of::Plain($inner) => $what,
            $of::Tls($inner) => $what,
        }
    };
}

/// Reads and writes whichever it is.
macro_rules! passes_on {
    ($of:ident) => {
        impl AsyncRead for $of {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                either!(self, $of, inner => Pin::new(inner).poll_read(cx, buf))
            }
        }

        impl AsyncWrite for $of {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                either!(self, $of, inner => Pin::new(inner).poll_write(cx, bytes))
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                all: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                either!(self, $of, inner => Pin::new(inner).poll_write_vectored(cx, all))
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    $of::Plain(inner) => inner.is_write_vectored(),
                    $of::Tls(inner) => inner.is_write_vectored(),
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                either!(self, $of, inner => Pin::new(inner).poll_flush(cx))
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                either!(self, $of, inner => Pin::new(inner).poll_shutdown(cx))
            }
        }
    };
}

passes_on!(Wire);
passes_on!(ClientWire);

/// How a client of HTTP reaches a node.
#[derive(Clone, Default)]
pub enum Dial {
    /// In plain.
    #[default]
    Plain,
    /// Over TLS, to a node whose certificate these authorities have signed.
    Tls(Arc<ClientConfig>),
}

impl Dial {
    /// Over TLS, to a node whose certificate was signed by an authority of this PEM file.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn trusting(file: &Path) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in certificates(file)? {
            roots.add(authority)?;
        }
        Self::with(roots)
    }

    fn with(roots: RootCertStore) -> Result<Self, TlsError> {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self::Tls(Arc::new(config)))
    }

    /// Whether others can read what passes.
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Plain)
    }

    /// A connection to `host:port`.
    ///
    /// # Errors
    /// When nobody listens there, or the certificate is not that of the host.
    pub async fn connect(&self, address: &str) -> io::Result<ClientWire> {
        let stream = TcpStream::connect(address).await?;
        let Self::Tls(config) = self else {
            return Ok(ClientWire::Plain(stream));
        };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let secured = TlsConnector::from(Arc::clone(config))
            .connect(name, stream)
            .await?;
        Ok(ClientWire::Tls(Box::new(secured)))
    }
}

/// A client's side of a connection.
pub enum ClientWire {
    /// In plain.
    Plain(TcpStream),
    /// Over TLS.
    Tls(Box<client::TlsStream<TcpStream>>),
}
