//! Byte streams: TCP connections, with or without TLS, whose handshakes are done. Gathered non-blocking writes and
//! reads; what the kernel holds is bounded.

use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use rustls::Connection;
use socket2::SockRef;

use super::socket::set;

/// One connection.
#[derive(Debug)]
pub struct ByteStream {
    socket: TcpStream,
    peer: SocketAddr,
    tls: Option<Box<Connection>>,
}

/// What the kernel knows of a connection (tcp(7), TCP_INFO).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpInfo {
    /// Bytes that the peer has acknowledged since the connection began.
    pub acknowledged: u64,
    /// Bytes that were written and are not sent for the first time.
    pub unsent: u32,
    /// Smoothed round trip time in microseconds.
    pub rtt_us: u32,
    /// Segments that were sent again.
    pub retransmitted: u32,
}

impl ByteStream {
    /// Takes over a connection whose handshakes are done. It does not block from here on, sends small writes at
    /// once, and is lost when the peer acknowledges nothing for 10 s.
    ///
    /// # Errors
    /// It is not connected any more.
    pub fn new(socket: TcpStream, tls: Option<Connection>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let peer = socket.peer_addr()?;
        prepare(&socket)?;
        Ok(Self { socket, peer, tls: tls.map(Box::new) })
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether it is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Bounds what the kernel holds for it, in bytes: sent and not acknowledged, or not sent yet.
    ///
    /// # Errors
    /// As setsockopt.
    pub fn bound(&self, bytes: usize) -> io::Result<()> {
        let socket = SockRef::from(&self.socket);
        // The kernel doubles it, for its own bookkeeping (socket(7)).
        socket.set_send_buffer_size(bytes)?;
        let unsent = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        set(&socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, unsent)
    }

    /// Writes as much of `pieces` as goes without waiting; how many bytes that were. Over TLS at most 32 kB at a
    /// time, so that little waits encrypted.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: nothing went. Others: it is over.
    pub fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return (&self.socket).write_vectored(pieces) };
        flush(tls, &self.socket)?;
        let mut taken = 0;
        for piece in pieces {
            let room = RECORDS - taken;
            let part = &piece[..piece.len().min(room)];
            taken += tls.writer().write(part)?;
            if part.len() < piece.len() {
                break;
            }
        }
        match flush(tls, &self.socket) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    /// Whether encrypted bytes wait for room.
    pub fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Sends encrypted bytes that wait.
    ///
    /// # Errors
    /// As [`ByteStream::write`].
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => flush(tls, &self.socket),
            None => Ok(()),
        }
    }

    /// Reads what has come; 0 is the end.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: nothing has come. Others: it is over.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return (&self.socket).read(buffer) };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            if tls.read_tls(&mut &self.socket)? == 0 {
                return Ok(0);
            }
            tls.process_new_packets().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            // A handshake message after the handshake may want an answer.
            match flush(tls, &self.socket) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
    }

    /// Says that nothing more comes from here; what was written is still sent.
    pub fn finish(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            // The peer learns it by the end of the connection, too.
            let _ = flush(tls, &self.socket);
        }
        let _ = self.socket.shutdown(std::net::Shutdown::Write);
    }

    /// What the kernel knows of it; all 0 when it knows nothing any more.
    pub fn info(&self) -> TcpInfo {
        TcpInfo::of(&self.socket)
    }
}

impl TcpInfo {
    /// Of a connection; all 0 when the kernel knows nothing of it any more.
    pub fn of(socket: &impl AsRawFd) -> Self {
        let mut bytes = [0u8; INFO];
        let mut length = bytes.len() as libc::socklen_t;
        // SAFETY: `bytes` is valid for `length`, which says how much of it the kernel may write.
        let done = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                bytes.as_mut_ptr().cast(),
                &mut length,
            )
        };
        if done != 0 {
            return Self::default();
        }
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let acknowledged: [u8; 8] = bytes[ACKNOWLEDGED..ACKNOWLEDGED + 8].try_into().unwrap_or_default();
        Self {
            acknowledged: u64::from_ne_bytes(acknowledged),
            unsent: word(NOT_SENT),
            rtt_us: word(RTT),
            retransmitted: word(RETRANSMITTED),
        }
    }
}

/// Lets a connection send small writes at once, and be lost when the peer acknowledges nothing for 10 s.
///
/// # Errors
/// As setsockopt.
pub fn prepare(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

impl AsFd for ByteStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn flush(tls: &mut Connection, socket: &TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(&mut &*socket)?;
    }
    Ok(())
}

const USER_TIMEOUT: Duration = Duration::from_secs(10);
/// Two TLS records.
const RECORDS: usize = 32 << 10;
/// `struct tcp_info` of `linux/tcp.h` up to `tcpi_notsent_bytes`, and where its fields are: libc's ends before them.
const INFO: usize = 148;
const RTT: usize = 68;
const RETRANSMITTED: usize = 100;
const ACKNOWLEDGED: usize = 120;
const NOT_SENT: usize = 144;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn what_the_peer_takes_is_acknowledged_and_what_it_does_not_take_is_bounded() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream =
            ByteStream::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap(), None).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        SockRef::from(&far).set_recv_buffer_size(16 << 10).unwrap();
        stream.bound(64 << 10).unwrap();
        let chunk = [7u8; 4096];
        let mut written = 0;
        loop {
            match stream.write(&[IoSlice::new(&chunk), IoSlice::new(&chunk)]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
            assert!(written < 8 << 20, "the kernel takes everything");
        }
        let mut got = vec![0; written];
        far.read_exact(&mut got).unwrap();
        assert!(got.iter().all(|byte| *byte == 7));
        let mut tries = 0;
        while stream.info().acknowledged < written as u64 {
            std::thread::park_timeout(Duration::from_millis(5));
            tries += 1;
            assert!(tries < 1000, "{:?} of {written}", stream.info());
        }
        assert_eq!(stream.info().unsent, 0);
        far.write_all(b"bye").unwrap();
        drop(far);
        let (mut buffer, mut heard) = ([0; 8], Vec::new());
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => heard.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(heard, b"bye");
    }
}
