//! System calls that the standard library does not offer, each behind a safe function. The only `unsafe`
//! of the benchmark.
#![allow(unsafe_code, reason = "recvmmsg, sendmmsg, epoll, CPU clocks and namespaces have no safe wrapper")]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Now on `CLOCK_MONOTONIC`, in nanoseconds: one clock for every process of the benchmark.
pub(crate) fn now() -> u64 {
    read_clock(libc::CLOCK_MONOTONIC).unwrap_or(0)
}

/// CPU time that a process used so far: user and system, all its threads, those that ended included, in
/// nanoseconds. It is the sum that `/proc/PID/task/*/schedstat` shows for the living threads.
pub(crate) fn cpu_time(pid: u32) -> io::Result<u64> {
    let mut clock = 0;
    // SAFETY: `clock` is a valid place for the answer.
    let error = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    read_clock(clock)
}

fn read_clock(clock: libc::clockid_t) -> io::Result<u64> {
    // SAFETY: an all-zero timespec is valid.
    let mut time: libc::timespec = unsafe { zeroed() };
    // SAFETY: `time` is a valid place for the answer.
    check(unsafe { libc::clock_gettime(clock, &mut time) })?;
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Moves this thread, and every thread and process it starts from now on, into a network namespace of its
/// own. The namespace ends with the last of them.
pub(crate) fn enter_private_network() -> io::Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// Makes the child run on these CPUs only and die when this process dies, however that happens.
pub(crate) fn bind_child(command: &mut Command, cpus: &[usize]) {
    let set = cpu_set(cpus);
    let bind = move || {
        // SAFETY: `set` is a valid CPU set of the size given.
        check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) })?;
        // SAFETY: takes no pointer.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }).map(drop)
    };
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(bind) };
}

/// The CPUs that this process may run on.
pub(crate) fn allowed_cpus() -> Vec<usize> {
    let mut set = cpu_set(&[]);
    // SAFETY: `set` is a valid place for a CPU set of the size given.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    if result != 0 {
        return vec![0];
    }
    // SAFETY: `set` is initialised, and `cpu` is below its capacity.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

fn cpu_set(cpus: &[usize]) -> libc::cpu_set_t {
    // SAFETY: an all-zero set is the empty set.
    let mut set: libc::cpu_set_t = unsafe { zeroed() };
    for &cpu in cpus.iter().filter(|&&cpu| cpu < libc::CPU_SETSIZE as usize) {
        // SAFETY: `cpu` is below the capacity of the set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    set
}

/// Lets sleeps of this thread end on time instead of up to 50 µs late.
pub(crate) fn sleep_precisely() {
    // SAFETY: takes no pointer.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}

/// Asks a process to end.
pub(crate) fn terminate(pid: u32) {
    // SAFETY: takes no pointer. The caller holds the child unreaped, so the id is still its own.
    unsafe { libc::kill(pid as libc::pid_t, libc::SIGTERM) };
}

/// Interrupts a process as Ctrl-C does.
pub(crate) fn interrupt(pid: u32) {
    // SAFETY: takes no pointer. The caller holds the child unreaped, so the id is still its own.
    unsafe { libc::kill(pid as libc::pid_t, libc::SIGINT) };
}

/// Raises the limit of open files to the highest value allowed and returns it.
pub(crate) fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is valid.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(limit.rlim_max)
}

/// Forbids fragments: the kernel then has no identification to make for each packet.
pub(crate) fn forbid_fragments(socket: &impl AsFd) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
}

/// Makes the kernel cut every send of this socket into datagrams of `size` bytes (UDP GSO).
pub(crate) fn segment_sends(socket: &impl AsFd, size: usize) -> io::Result<()> {
    set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, size as libc::c_int)
}

/// Makes the kernel deliver datagrams of one send in one piece (UDP GRO).
pub(crate) fn merge_receives(socket: &impl AsFd) -> io::Result<()> {
    set_option(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Asks for a receive buffer, beyond the system's limit if this process may.
pub(crate) fn grow_receive_buffer(socket: &impl AsFd, bytes: usize) -> io::Result<()> {
    let bytes = bytes as libc::c_int;
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)
        .or_else(|_| set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes))
}

/// How many deliveries the kernel dropped because this socket's buffer was full: the counter of
/// `SO_RXQ_OVFL`, without waiting for the next datagram.
pub(crate) fn overflows(socket: &impl AsFd) -> io::Result<u32> {
    const SK_MEMINFO_DROPS: usize = 8;
    let mut info = [0u32; SK_MEMINFO_DROPS + 1];
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: `info` is a valid place for `length` bytes.
    check(unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &mut length,
        )
    })?;
    Ok(info[SK_MEMINFO_DROPS])
}

fn set_option(
    socket: &impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: `value` is valid for the size given.
    check(unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// Waits for many descriptors.
pub(crate) struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    /// An empty set.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: takes no pointer.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor is new and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; 1024] })
    }

    /// Waits for `source` to become readable from now on; `wait` calls it `token`.
    pub(crate) fn add(&self, source: &impl AsFd, token: usize) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token as u64 };
        let (set, source) = (self.fd.as_raw_fd(), source.as_fd().as_raw_fd());
        // SAFETY: `event` is valid during the call.
        check(unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, source, &mut event) }).map(drop)
    }

    /// Waits for it no more.
    pub(crate) fn remove(&self, source: &impl AsFd) -> io::Result<()> {
        let (set, source) = (self.fd.as_raw_fd(), source.as_fd().as_raw_fd());
        // SAFETY: the event is not looked at (epoll_ctl(2)).
        check(unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_DEL, source, std::ptr::null_mut()) }).map(drop)
    }

    /// Blocks until something is readable and returns the tokens.
    pub(crate) fn wait(&mut self) -> io::Result<impl Iterator<Item = usize> + '_> {
        self.wait_at_most(-1)
    }

    /// The same for so many milliseconds, or for ever if they are negative.
    pub(crate) fn wait_at_most(&mut self, time: libc::c_int) -> io::Result<impl Iterator<Item = usize> + '_> {
        let room = self.events.len() as libc::c_int;
        // SAFETY: `events` has room for `room` entries.
        let result = unsafe { libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), room, time) };
        let count = match check(result) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            result => result.unwrap_or(0) as usize,
        };
        Ok(self.events[..count].iter().map(|event| event.u64 as usize))
    }
}

/// Buffers for receiving many datagrams with one system call.
pub(crate) struct Inbox {
    buffers: Vec<[u8; Self::BUFFER]>,
    controls: Vec<[u64; Self::CONTROL]>,
}

impl Inbox {
    const BATCH: usize = 16;
    const BUFFER: usize = 1 << 16;
    const CONTROL: usize = 8;

    /// Empty buffers.
    pub(crate) fn new() -> Self {
        Self {
            buffers: vec![[0; Self::BUFFER]; Self::BATCH],
            controls: vec![[0; Self::CONTROL]; Self::BATCH],
        }
    }

    /// Takes everything that waits in a socket and hands each delivery over, with the length of the
    /// datagrams in it: a delivery of a merging socket may hold several.
    pub(crate) fn drain(&mut self, socket: &impl AsFd, mut each: impl FnMut(&[u8], usize)) -> io::Result<()> {
        loop {
            // SAFETY: all-zero headers and vectors are valid: no pointers, no lengths.
            let (mut headers, mut vectors): ([libc::mmsghdr; Self::BATCH], [libc::iovec; Self::BATCH]) =
                unsafe { (zeroed(), zeroed()) };
            for (((header, vector), buffer), control) in
                headers.iter_mut().zip(&mut vectors).zip(&mut self.buffers).zip(&mut self.controls)
            {
                *vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
                header.msg_hdr.msg_iov = vector;
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_control = control.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = size_of_val(control);
            }
            let fd = socket.as_fd().as_raw_fd();
            // SAFETY: every header points to one vector and one control buffer, every vector to one buffer,
            // and all of them outlive the call.
            let result = unsafe {
                libc::recvmmsg(
                    fd,
                    headers.as_mut_ptr(),
                    Self::BATCH as libc::c_uint,
                    libc::MSG_DONTWAIT,
                    std::ptr::null_mut(),
                )
            };
            let count = match check(result) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                result => result? as usize,
            };
            for (header, buffer) in headers[..count].iter().zip(&self.buffers) {
                let length = header.msg_len as usize;
                each(&buffer[..length.min(Self::BUFFER)], merged_size(&header.msg_hdr).unwrap_or(length));
            }
            if count < Self::BATCH {
                return Ok(());
            }
        }
    }
}

/// The size of the datagrams in a merged delivery.
fn merged_size(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: the kernel filled `msg_control` up to `msg_controllen`, and the buffer is still there.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null or a whole message inside the buffer.
        let (level, kind) = unsafe { ((*message).cmsg_level, (*message).cmsg_type) };
        if level == libc::SOL_UDP && kind == libc::UDP_GRO {
            // SAFETY: this message carries an int (udp(7)).
            let size = unsafe { libc::CMSG_DATA(message).cast::<libc::c_int>().read_unaligned() };
            return usize::try_from(size).ok();
        }
        // SAFETY: as above.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    None
}

/// Datagrams of a socket with their senders, many with one system call.
pub(crate) struct Mailbox {
    buffers: Vec<[u8; Self::BUFFER]>,
    names: Vec<libc::sockaddr_in>,
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

impl Mailbox {
    const BATCH: usize = 128;
    const BUFFER: usize = 2048;

    /// Empty buffers.
    pub(crate) fn new() -> Self {
        Self {
            buffers: vec![[0; Self::BUFFER]; Self::BATCH],
            names: vec![socket_address(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)); Self::BATCH],
            vectors: Vec::with_capacity(Self::BATCH),
            headers: Vec::with_capacity(Self::BATCH),
        }
    }

    /// Takes everything that waits in a socket of IPv4 and hands each datagram over.
    pub(crate) fn drain(
        &mut self,
        socket: &impl AsFd,
        mut each: impl FnMut(SocketAddrV4, &[u8]),
    ) -> io::Result<()> {
        loop {
            self.point();
            let fd = socket.as_fd().as_raw_fd();
            // SAFETY: every header points to one name and one vector, every vector to one buffer, and all of them
            // outlive the call.
            let result = unsafe {
                libc::recvmmsg(
                    fd,
                    self.headers.as_mut_ptr(),
                    Self::BATCH as libc::c_uint,
                    libc::MSG_DONTWAIT,
                    std::ptr::null_mut(),
                )
            };
            let count = match check(result) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // What came back for something that was sent: the next call has datagrams again.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                result => result? as usize,
            };
            for ((header, buffer), name) in self.headers[..count].iter().zip(&self.buffers).zip(&self.names) {
                let address = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
                let length = (header.msg_len as usize).min(Self::BUFFER);
                each(SocketAddrV4::new(address, u16::from_be(name.sin_port)), &buffer[..length]);
            }
            if count < Self::BATCH {
                return Ok(());
            }
        }
    }

    fn point(&mut self) {
        self.vectors.clear();
        self.headers.clear();
        self.vectors.extend(
            self.buffers
                .iter_mut()
                .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() }),
        );
        self.headers.extend(self.vectors.iter_mut().zip(&mut self.names).map(|(vector, name)| {
            // SAFETY: an all-zero header is valid: no pointers, no lengths.
            let mut header: libc::mmsghdr = unsafe { zeroed() };
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = (&raw mut *name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header
        }));
    }
}

/// Small datagrams to many destinations, many with one system call.
#[derive(Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    lengths: Vec<usize>,
    names: Vec<libc::sockaddr_in>,
}

impl Outbox {
    /// Puts a datagram in.
    pub(crate) fn push(&mut self, to: SocketAddrV4, datagram: &[u8]) {
        self.bytes.extend_from_slice(datagram);
        self.lengths.push(datagram.len());
        self.names.push(socket_address(to));
    }

    /// Sends all of them. One that the kernel refuses is lost.
    pub(crate) fn flush(&mut self, socket: &impl AsFd) {
        let mut rest = self.bytes.as_mut_slice();
        let mut vectors: Vec<libc::iovec> = Vec::with_capacity(self.lengths.len());
        for &length in &self.lengths {
            let (datagram, later) = rest.split_at_mut(length);
            vectors.push(libc::iovec { iov_base: datagram.as_mut_ptr().cast(), iov_len: length });
            rest = later;
        }
        let headers = vectors.iter_mut().zip(&mut self.names).map(|(vector, name)| {
            // SAFETY: an all-zero header is valid: no pointers, no lengths.
            let mut header: libc::mmsghdr = unsafe { zeroed() };
            header.msg_hdr.msg_name = (&raw mut *name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header
        });
        let mut headers: Vec<libc::mmsghdr> = headers.collect();
        let mut rest = headers.as_mut_slice();
        while !rest.is_empty() {
            let (fd, length) = (socket.as_fd().as_raw_fd(), rest.len() as libc::c_uint);
            // SAFETY: each of the `length` headers points to a name and a vector, each vector into `bytes`, and all
            // of them outlive the call.
            let result = unsafe { libc::sendmmsg(fd, rest.as_mut_ptr(), length, 0) };
            // The first of the rest was refused: go on behind it.
            rest = rest.split_at_mut(usize::try_from(result).unwrap_or(0).max(1)).1;
        }
        self.bytes.clear();
        self.lengths.clear();
        self.names.clear();
    }
}

/// Sends one payload to many destinations with as few system calls as possible. Never freed: it lives as
/// long as its process.
pub(crate) struct Walk {
    headers: Vec<libc::mmsghdr>,
    payload: *mut libc::iovec,
}

// SAFETY: the pointers lead to memory that is never freed and that nobody else uses.
unsafe impl Send for Walk {}

impl Walk {
    /// Prepares a walk over the destinations, in this order.
    pub(crate) fn new(destinations: &[SocketAddrV4]) -> Self {
        let payload = Box::into_raw(Box::new(libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }));
        let names: Vec<libc::sockaddr_in> = destinations.iter().copied().map(socket_address).collect();
        let names: &'static mut [libc::sockaddr_in] = names.leak();
        let headers = names.iter_mut().map(|name| {
            // SAFETY: an all-zero header is valid: no pointers, no lengths.
            let mut header: libc::mmsghdr = unsafe { zeroed() };
            header.msg_hdr.msg_name = (&raw mut *name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_hdr.msg_iov = payload;
            header.msg_hdr.msg_iovlen = 1;
            header
        });
        Self { headers: headers.collect(), payload }
    }

    /// Sends the payload to every destination and returns how many took it.
    pub(crate) fn send(&mut self, socket: &impl AsFd, payload: &[u8]) -> u64 {
        let vector = libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
        // SAFETY: `self.payload` was made by `new`, is never freed, and nobody else holds it. The kernel
        // only reads through `iov_base`.
        unsafe { self.payload.write(vector) };
        let mut sent = 0;
        for chunk in self.headers.chunks_mut(Self::BATCH) {
            let mut rest = chunk;
            while !rest.is_empty() {
                let (fd, length) = (socket.as_fd().as_raw_fd(), rest.len() as libc::c_uint);
                // SAFETY: each of the `length` headers points to a name and a vector that are never freed,
                // and the vector to `payload`, which outlives the call.
                let result = unsafe { libc::sendmmsg(fd, rest.as_mut_ptr(), length, 0) };
                let count = usize::try_from(result).unwrap_or(0);
                sent += count as u64;
                // The first of the rest was refused: go on behind it.
                rest = rest.split_at_mut(count.max(1)).1;
            }
        }
        sent
    }

    const BATCH: usize = 64;
}

fn socket_address(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
