//! What a shard waits for: readable sockets, a doorbell, a moment in time.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Names a socket in a poller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// Where a poller is told which sockets to wait for.
#[derive(Debug, Clone)]
pub struct Registrar {
    epoll: Arc<OwnedFd>,
}

impl Registrar {
    /// Reports the socket once when it is readable; `rearm` asks for the next time.
    ///
    /// # Errors
    /// As epoll_ctl.
    pub fn add(&self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), token.0, ONCE)
    }

    /// Asks to be told again.
    ///
    /// # Errors
    /// As epoll_ctl.
    pub fn rearm(&self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_raw_fd(), token.0, ONCE)
    }

    /// Forgets the socket.
    ///
    /// # Errors
    /// As epoll_ctl.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd.as_raw_fd(), 0, 0)
    }

    fn control(&self, op: libc::c_int, fd: libc::c_int, token: u64, events: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: token };
        // SAFETY: `event` is valid for the call; the kernel copies it.
        match unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), op, fd, &mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Waits for sockets and the doorbell with nanosecond timeouts (epoll_pwait2, or epoll_wait where the kernel
/// is older than 5.11).
#[derive(Debug)]
pub struct Poller {
    sockets: Registrar,
    doorbell: Arc<Doorbell>,
    events: Vec<libc::epoll_event>,
    coarse: bool,
}

impl Poller {
    /// A poller with a doorbell of its own.
    ///
    /// # Errors
    /// Out of file descriptors or memory.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes a flag only; the result is checked below.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and belongs to nobody else.
        let epoll = Arc::new(unsafe { OwnedFd::from_raw_fd(fd) });
        let poller = Self {
            sockets: Registrar { epoll },
            doorbell: Arc::new(Doorbell::new()?),
            events: vec![libc::epoll_event { events: 0, u64: 0 }; 256],
            coarse: false,
        };
        poller.sockets.control(
            libc::EPOLL_CTL_ADD,
            poller.doorbell.fd.as_raw_fd(),
            DOORBELL,
            libc::EPOLLIN as u32,
        )?;
        Ok(poller)
    }

    /// The bell that ends a wait from another thread.
    pub fn doorbell(&self) -> Arc<Doorbell> {
        Arc::clone(&self.doorbell)
    }

    /// Where sockets are made known to it.
    pub fn sockets(&self) -> &Registrar {
        &self.sockets
    }

    /// Waits until something is ready or `timeout` has passed (`None` = for ever) and calls `ready` for every
    /// readable socket. Answers whether the doorbell rang.
    pub fn wait(&mut self, timeout: Option<Duration>, mut ready: impl FnMut(Token)) -> bool {
        let count = self.wait_events(timeout);
        let mut rang = false;
        for event in &self.events[..count] {
            match event.u64 {
                DOORBELL => rang |= self.doorbell.answer(),
                token => ready(Token(token)),
            }
        }
        rang
    }

    fn wait_events(&mut self, timeout: Option<Duration>) -> usize {
        if !self.coarse {
            let spec = timeout.map(|t| libc::timespec {
                tv_sec: t.as_secs() as libc::time_t,
                tv_nsec: libc::c_long::from(t.subsec_nanos()),
            });
            let spec_ptr = spec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
            // SAFETY: `events` is valid for its length, `spec_ptr` is null or points at `spec`, which outlives
            // the call; no signal mask is passed.
            let n = unsafe {
                libc::syscall(
                    libc::SYS_epoll_pwait2,
                    self.sockets.epoll.as_raw_fd(),
                    self.events.as_mut_ptr(),
                    self.events.len() as libc::c_int,
                    spec_ptr,
                    std::ptr::null::<libc::sigset_t>(),
                    8usize,
                )
            };
            if n >= 0 {
                return n as usize;
            }
            if io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS) {
                return 0;
            }
            self.coarse = true;
        }
        // Rounded up, so that a wait of less than a millisecond does not spin.
        let ms = timeout.map_or(-1, |t| t.as_micros().div_ceil(1000).min(60_000) as libc::c_int);
        // SAFETY: `events` is valid for its length.
        let n = unsafe {
            libc::epoll_wait(
                self.sockets.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.len() as libc::c_int,
                ms,
            )
        };
        n.max(0) as usize
    }
}

/// Ends a shard's wait from another thread. Ringing twice before it was answered costs no system call.
#[derive(Debug)]
pub struct Doorbell {
    fd: OwnedFd,
    rung: AtomicBool,
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Doorbell {
    /// A bell that rings in no poller yet.
    ///
    /// # Errors
    /// Out of file descriptors or memory.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes integers only; the result is checked below.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and belongs to nobody else.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, rung: AtomicBool::new(false) })
    }

    /// Wakes the shard.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            let one = 1u64;
            // SAFETY: writes the eight bytes of `one`. It can only fail when the counter is full, and then the
            // shard wakes anyway.
            unsafe { libc::write(self.fd.as_raw_fd(), std::ptr::from_ref(&one).cast(), 8) };
        }
    }

    /// Takes the rings so far: the next one writes again.
    pub fn answer(&self) -> bool {
        let mut count = 0u64;
        // SAFETY: reads eight bytes into `count`.
        unsafe { libc::read(self.fd.as_raw_fd(), std::ptr::from_mut(&mut count).cast(), 8) };
        // Cleared after the read and before the shard looks at its queues: a ring from here on writes again.
        // A swap, so that the look at the queues cannot move in front of it.
        self.rung.swap(false, Ordering::AcqRel);
        true
    }
}

const DOORBELL: u64 = u64::MAX;
const ONCE: u32 = (libc::EPOLLIN | libc::EPOLLONESHOT) as u32;

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn reports_a_readable_socket_once_until_rearmed() {
        let mut poller = Poller::new().unwrap();
        let rx = UdpSocket::bind("127.0.0.1:0").unwrap();
        poller.sockets().add(rx.as_fd(), Token(7)).unwrap();
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", rx.local_addr().unwrap()).unwrap();
        let mut seen = Vec::new();
        poller.wait(Some(Duration::from_secs(5)), |t| seen.push(t));
        poller.wait(Some(Duration::from_millis(1)), |t| seen.push(t));
        assert_eq!(seen, [Token(7)]);
        poller.sockets().rearm(rx.as_fd(), Token(7)).unwrap();
        poller.wait(Some(Duration::from_secs(5)), |t| seen.push(t));
        assert_eq!(seen, [Token(7), Token(7)]);
    }

    #[test]
    fn a_doorbell_ends_the_wait_every_time() {
        let mut poller = Poller::new().unwrap();
        let bell = poller.doorbell();
        for _ in 0..3 {
            bell.ring();
            bell.ring();
            assert!(poller.wait(Some(Duration::from_secs(5)), |_| {}));
            assert!(!poller.wait(Some(Duration::ZERO), |_| {}));
        }
    }
}
