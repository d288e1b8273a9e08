//! A connection on its runtime, with or without TLS: bytes enter and leave. Never waits for a peer without a bound.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};

use crate::net::{ByteStream, TcpInfo};

/// One connection.
pub(super) enum Socket {
    /// Not encrypted.
    Plain(TcpStream),
    /// We dialled.
    Client(Box<client::TlsStream<TcpStream>>),
    /// The peer did.
    Server(Box<server::TlsStream<TcpStream>>),
}

impl Socket {
    /// Takes it off its runtime.
    pub(super) fn into_bytes(self) -> io::Result<ByteStream> {
        match self {
            Self::Plain(socket) => ByteStream::from_tokio(socket),
            Self::Client(tls) => ByteStream::from_client(*tls),
            Self::Server(tls) => ByteStream::from_server(*tls),
        }
    }

    /// What the kernel knows of it.
    pub(super) fn info(&self) -> TcpInfo {
        match self {
            Self::Plain(socket) => TcpInfo::of(socket),
            Self::Client(tls) => TcpInfo::of(tls.get_ref().0),
            Self::Server(tls) => TcpInfo::of(tls.get_ref().0),
        }
    }

    /// Says that nothing more comes from here.
    pub(super) async fn finish(&mut self) {
        let done = async {
            match self {
                Self::Plain(socket) => socket.shutdown().await,
                Self::Client(tls) => tls.shutdown().await,
                Self::Server(tls) => tls.shutdown().await,
            }
        };
        // The peer learns it by the end of the connection, too.
        let _ = tokio::time::timeout(FINISH, done).await;
    }

    /// Reads what there is; 0 = the end.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer).await,
            Self::Client(tls) => tls.read(buffer).await,
            Self::Server(tls) => tls.read(buffer).await,
        }
    }

    /// Writes all of it, or fails when the peer takes too long.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let writing = async {
            match self {
                Self::Plain(socket) => socket.write_all(bytes).await,
                Self::Client(tls) => {
                    tls.write_all(bytes).await?;
                    tls.flush().await
                }
                Self::Server(tls) => {
                    tls.write_all(bytes).await?;
                    tls.flush().await
                }
            }
        };
        match tokio::time::timeout(WRITE, writing).await {
            Ok(written) => written,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes no answer")),
        }
    }
}

const FINISH: Duration = Duration::from_secs(1);
const WRITE: Duration = Duration::from_secs(10);
