//! How a test reaches the HTTP port of a node: in plain or over TLS, with a password or a token, or without.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;

use meseta_runtime::http::tls::{ClientWire, Dial};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;

use crate::LIMIT;

/// A way in.
#[derive(Clone)]
pub struct Door {
    /// `host:port`.
    pub address: String,
    /// Value of `Authorization`.
    pub authorization: Option<String>,
    dial: Dial,
}

impl Door {
    /// In plain, without proving anything.
    pub fn plain(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            authorization: None,
            dial: Dial::Plain,
        }
    }

    /// The same with this value of `Authorization`.
    #[must_use]
    pub fn showing(mut self, authorization: impl Into<String>) -> Self {
        self.authorization = Some(authorization.into());
        self
    }

    /// The same over TLS, trusting this authority.
    #[must_use]
    pub fn over_tls(mut self, authority: &Path) -> Self {
        self.dial = Dial::trusting(authority).unwrap();
        self
    }

    pub(crate) fn open(&self) -> io::Result<Stream> {
        if self.dial.is_plain() {
            let stream = TcpStream::connect(&self.address)?;
            stream.set_read_timeout(Some(LIMIT))?;
            return Ok(Stream::Plain(stream));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let wire = runtime.block_on(self.dial.connect(&self.address))?;
        Ok(Stream::Tls(runtime, wire))
    }
}

/// A connection.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Runtime, ClientWire),
}

impl Stream {
    /// Breaks it, if it is plain.
    pub(crate) fn close(&self) {
        if let Self::Plain(stream) = self {
            // It may be broken already.
            let _broken = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(bytes),
            Self::Tls(runtime, wire) => runtime.block_on(async {
                let late = |_| io::Error::from(io::ErrorKind::TimedOut);
                tokio::time::timeout(LIMIT, wire.read(bytes))
                    .await
                    .map_err(late)?
            }),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(runtime, wire) => runtime.block_on(async {
                let count = wire.write(bytes).await?;
                wire.flush().await?;
                Ok(count)
            }),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
