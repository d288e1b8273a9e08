//! One SRT session: packets of its peer, datagrams of its lane and time enter; what it wants sent, delivered or told
//! leaves. Knows no socket and no other session.

mod receiving;
mod sending;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::outbox::{Addressee, Outbox};
use super::{Conduct, Owner, Role};
use crate::media::Nanos;
use crate::net::clock;
use crate::telemetry::{self, Encryption, Rate, SrtStats};
use crate::wire::srt::crypto::{
    Cipher, Kek, KeyLength, KeyReply, KeyState, Passphrase, ReceiveKeys, SALT, SendKeys,
};
use crate::wire::srt::handshake::{Agreed, Caller, Flags, Progress, Refusal, Rendezvous, Version};
use crate::wire::srt::{
    Control, ControlPacket, HEADER, KeyFlag, Packet, Receiver, ReceiverConfig, Sender, SenderConfig,
    SocketId, Spread, UserKind,
};

pub(super) use receiving::Receiving;
pub(super) use sending::Sending;

/// One session.
pub(super) struct Session {
    pub(super) owner: Owner,
    pub(super) attempt: u32,
    /// Index of its port.
    pub(super) port: usize,
    pub(super) local: SocketId,
    pub(super) peer: SocketAddr,
    /// The kernel may cut its messages.
    pub(super) segmented: bool,
    /// What stands in the timers for it.
    pub(super) timer: Option<Nanos>,
    /// It is on the list of those who are to be given a chance to answer.
    pub(super) touched: bool,
    pub(super) stage: Stage,
    pub(super) stats: Arc<SrtStats>,
    /// How it came here, for one that dialled in.
    pub(super) visit: Option<Box<Visit>>,
    /// The connection group that it is a link of.
    pub(super) membership: Membership,
    /// The last word of a rendezvous, for a peer that has missed it.
    agreement: Option<Box<[u8]>>,
    rate: Rate,
    told: Told,
}

/// What connection group a session is a link of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Membership {
    /// None.
    Alone,
    /// A group that sends, and the number of the link in it.
    Sends(usize, usize),
    /// A group that receives.
    Receives(usize),
}

/// A session that dialled in.
pub(super) struct Visit {
    /// What others see of it.
    pub(super) card: Arc<telemetry::Session>,
    /// The socket id that the peer gave itself: repeated requests are known by it.
    pub(super) asked_as: SocketId,
    /// What it was answered with, to answer the same again.
    pub(super) answer: Vec<u8>,
}

/// Where a session stands.
pub(super) enum Stage {
    /// We dial.
    Dialling(Box<Dialling>),
    /// It sends.
    Sending(Box<Sending>),
    /// It receives.
    Receiving(Box<Receiving>),
}

/// A session that we open.
pub(super) struct Dialling {
    pub(super) dialler: Dialler,
    pub(super) role: Role,
    pub(super) conduct: Conduct,
    pub(super) passphrase: Option<Passphrase>,
    /// The peer's host says that nobody has the port. Anybody on the way can say so: it only explains a silence.
    pub(super) nobody: bool,
}

/// What the owner of all sessions has to do after a packet or a moment.
pub(super) enum Reaction {
    /// Nothing.
    None,
    /// Let it answer soon: what it owes may travel with its next data.
    Owes,
    /// Let it answer now.
    Answer,
    /// Say again what was said last in the handshake.
    Repeat,
    /// Derive a key from this and give it to [`Session::adopt`].
    Derive(Passphrase, [u8; SALT]),
    /// The handshake is done.
    Connected(Box<Agreed>),
    /// It is over.
    Over(End),
}

/// Who dials.
pub(super) enum Dialler {
    /// We do.
    Caller(Caller),
    /// Both do.
    Rendezvous(Rendezvous),
}

impl Dialler {
    fn handle(&mut self, packet: &Packet<'_>, now: Nanos) -> Progress {
        match self {
            Self::Caller(caller) => caller.handle(packet, now),
            Self::Rendezvous(rendezvous) => rendezvous.handle(packet, now),
        }
    }

    fn poll(&mut self, now: Nanos) -> Option<Vec<u8>> {
        match self {
            Self::Caller(caller) => caller.poll(now),
            Self::Rendezvous(rendezvous) => rendezvous.poll(now),
        }
    }

    fn next_due(&self) -> Nanos {
        match self {
            Self::Caller(caller) => caller.next_due(),
            Self::Rendezvous(rendezvous) => rendezvous.next_due(),
        }
    }

    fn overdue(&self, now: Nanos) -> Option<Refusal> {
        match self {
            Self::Caller(caller) => caller.overdue(now),
            Self::Rendezvous(rendezvous) => rendezvous.overdue(now),
        }
    }
}

/// Why a session is over.
#[derive(Debug)]
pub(super) struct End {
    pub(super) reason: String,
    pub(super) retryable: bool,
}

/// How often the key of the data packets changed.
#[derive(Default)]
struct Refreshes {
    flag: KeyFlag,
    count: u32,
}

/// What was added to the counters of the owner so far.
#[derive(Default)]
struct Told {
    packets: u64,
    bytes: u64,
    skipped: u64,
    by_bandwidth: u64,
    by_window: u64,
    acknowledged: u64,
}

impl Session {
    /// A session in its first stage.
    pub(super) fn new(
        (owner, attempt): (Owner, u32),
        (port, local, peer): (usize, SocketId, SocketAddr),
        stage: Stage,
        stats: Arc<SrtStats>,
    ) -> Self {
        Self {
            owner,
            attempt,
            port,
            local,
            peer,
            segmented: true,
            timer: None,
            touched: false,
            stage,
            stats,
            visit: None,
            membership: Membership::Alone,
            agreement: None,
            rate: Rate::default(),
            told: Told::default(),
        }
    }

    pub(super) fn addressee(&self, index: usize) -> Addressee {
        Addressee { session: index, to: self.peer, segmented: self.segmented }
    }

    /// Takes a datagram of its peer.
    pub(super) fn handle(&mut self, datagram: &[u8], arrival: Nanos) -> Reaction {
        let Ok(packet) = Packet::parse(datagram) else { return Reaction::None };
        match &mut self.stage {
            Stage::Dialling(dialling) => {
                let progress = dialling.dialler.handle(&packet, arrival);
                if let (Progress::Connected(_), Dialler::Rendezvous(rendezvous)) =
                    (&progress, &dialling.dialler)
                {
                    self.agreement = rendezvous.agreement().map(Into::into);
                }
                dialling.react(progress)
            }
            _ if self.agreement.is_some()
                && matches!(
                    packet,
                    Packet::Control(ControlPacket { control: Control::Handshake(_), .. })
                ) =>
            {
                Reaction::Repeat
            }
            Stage::Sending(sending) => match packet {
                // One direction carries data here; a peer that sends some is told nothing.
                Packet::Data(..) => {
                    sending.sender.hear(arrival);
                    Reaction::None
                }
                Packet::Control(packet) => sending.control(&packet, arrival),
            },
            Stage::Receiving(receiving) => match packet {
                Packet::Data(_, payload) => {
                    let Some(header) = datagram.first_chunk::<HEADER>() else { return Reaction::None };
                    receiving.data(header, payload, arrival)
                }
                Packet::Control(packet) => receiving.control(&packet, arrival),
            },
        }
    }

    /// Puts into `outbox` what it has to say now, besides new data: what is to be sent again, control packets.
    pub(super) fn answer(&mut self, index: usize, outbox: &mut Outbox, now: Nanos) -> Reaction {
        let to = self.addressee(index);
        match &mut self.stage {
            Stage::Dialling(dialling) => {
                while let Some(datagram) = dialling.dialler.poll(now) {
                    outbox.raw(to, &datagram);
                }
                match dialling.dialler.overdue(now) {
                    Some(_) if dialling.nobody => Reaction::Over(End::lost(
                        "no answer in time: the peer's host says that nobody listens there (ICMP port unreachable)",
                    )),
                    Some(refusal) => Reaction::Over(End::refused(&refusal)),
                    None => Reaction::None,
                }
            }
            Stage::Sending(sending) => {
                if sending.sender.is_peer_lost(now) {
                    return Reaction::Over(End::silent());
                }
                sending.send_again(to, outbox, now);
                sending.send_control(to, outbox, now);
                Reaction::None
            }
            Stage::Receiving(receiving) => {
                if receiving.receiver.is_peer_lost(now) {
                    return Reaction::Over(End::silent());
                }
                if receiving.receiver.is_out_of_reach() {
                    return Reaction::Over(End::lost("the peer's packet numbers ran away"));
                }
                // The links of a group deliver together.
                if self.membership == Membership::Alone {
                    receiving.deliver(now);
                }
                if !receiving.reply.is_empty() {
                    outbox.raw(to, &std::mem::take(&mut receiving.reply));
                }
                while receiving.receiver.next_control(now, &mut receiving.control) {
                    outbox.raw(to, &receiving.control);
                }
                Reaction::None
            }
        }
    }

    /// A key that it asked for and will not get. The peer repeats its message.
    pub(super) fn forgo(&mut self) {
        if let Stage::Receiving(receiving) = &mut self.stage {
            receiving.awaited = None;
        }
    }

    /// When it wants a turn without a packet having arrived.
    pub(super) fn next_due(&self) -> Nanos {
        match &self.stage {
            Stage::Dialling(dialling) => dialling.dialler.next_due(),
            Stage::Sending(sending) => {
                let keys = sending.keys.as_ref().and_then(SendKeys::next_due).unwrap_or(Nanos::MAX);
                sending.sender.next_due().min(keys)
            }
            Stage::Receiving(receiving) => receiving.receiver.next_due(),
        }
    }

    /// Tells the peer that it is over.
    pub(super) fn part(&mut self, index: usize, outbox: &mut Outbox, now: Nanos) {
        let to = self.addressee(index);
        let packet = match &mut self.stage {
            // A rendezvous has a last word too.
            Stage::Dialling(dialling) => {
                while let Some(datagram) = dialling.dialler.poll(now) {
                    outbox.raw(to, &datagram);
                }
                return;
            }
            Stage::Sending(sending) => sending.sender.control(Control::Shutdown, now),
            Stage::Receiving(receiving) => receiving.receiver.control(Control::Shutdown, now),
        };
        outbox.control(to, &packet);
    }

    /// What it said last in a rendezvous.
    pub(super) fn agreement(&self) -> Option<&[u8]> {
        self.agreement.as_deref()
    }

    /// A key that it asked for.
    pub(super) fn adopt(&mut self, index: usize, kek: &Kek, outbox: &mut Outbox, now: Nanos) -> Reaction {
        let to = self.addressee(index);
        match &mut self.stage {
            Stage::Dialling(dialling) => match &mut dialling.dialler {
                Dialler::Rendezvous(rendezvous) => {
                    let progress = rendezvous.adopt(kek, now);
                    dialling.react(progress)
                }
                Dialler::Caller(_) => Reaction::None,
            },
            Stage::Sending(_) => Reaction::None,
            Stage::Receiving(receiving) => {
                if let (Some(request), Some(keys)) = (receiving.awaited.take(), &mut receiving.keys)
                    && let KeyReply::Answer(body) = keys.adopt(kek, &request)
                {
                    let response = Control::User(UserKind::KeyResponse, &body);
                    outbox.control(to, &receiving.receiver.control(response, now));
                }
                Reaction::None
            }
        }
    }

    /// Shows its counters, and adds what is new to those of its owner. Answers bits per second.
    pub(super) fn publish(&mut self, now: Nanos) -> u64 {
        match &self.stage {
            Stage::Dialling(_) => 0,
            Stage::Sending(sending) => {
                let told = (self.membership == Membership::Alone).then_some(&mut self.told);
                let bps = sending.publish(self.peer, &self.stats, told, &mut self.rate, now);
                self.stats.rate_bps.store(bps, Relaxed);
                bps
            }
            Stage::Receiving(receiving) => {
                let bps = receiving.publish(&self.stats, &mut self.rate, now);
                self.stats.rate_bps.store(bps, Relaxed);
                bps
            }
        }
    }
}

impl Dialling {
    fn react(&self, progress: Progress) -> Reaction {
        match (progress, &self.passphrase) {
            (Progress::Waiting, _) => Reaction::Answer,
            (Progress::Derive(salt), Some(passphrase)) => Reaction::Derive(passphrase.clone(), salt),
            (Progress::Derive(_), None) => Reaction::None,
            (Progress::Connected(agreed), _) => Reaction::Connected(agreed),
            (Progress::Refused(refusal), _) => Reaction::Over(End::refused(&refusal)),
        }
    }
}

impl Stage {
    /// What a session is after its handshake; in the words of an operator why it cannot be.
    pub(super) fn agreed(
        mut agreed: Agreed,
        role: Role,
        conduct: Conduct,
        passphrase: Option<Passphrase>,
        stats: &SrtStats,
        now: Nanos,
    ) -> Result<Self, End> {
        let ms = |latency: u16| Duration::from_millis(latency.into());
        stats.since_ms.store(clock::wall_ms(), Relaxed);
        stats.peer_version.store(agreed.peer_version.0);
        match role {
            Role::Send(source) => {
                if !agreed.security.may_send() {
                    return Err(End {
                        reason: secret_trouble(agreed.security.send).into(),
                        retryable: false,
                    });
                }
                // srt-rs names its payload size where others name that of the whole packet.
                if usize::from(agreed.mss) < PAYLOAD {
                    let reason = format!(
                        "the peer takes packets of {} bytes at the most (MSS), a datagram alone has {PAYLOAD}",
                        agreed.mss
                    );
                    return Err(End { reason, retryable: false });
                }
                stats.encryption.store(encryption(agreed.security.sender.as_ref().map(SendKeys::strength)));
                stats.latency_ms.store(agreed.send_latency.into(), Relaxed);
                let config = SenderConfig {
                    destination: agreed.peer,
                    start: agreed.started,
                    initial: agreed.first_sent,
                    window: agreed.peer_window,
                    peer_latency: ms(agreed.send_latency),
                    peer_drops_late: agreed.peer_flags.has(Flags::TOO_LATE_DROP),
                    peer_repeats_reports: agreed.peer_flags.has(Flags::NAK_REPORT),
                    idle_timeout: conduct.idle_timeout,
                    bandwidth: conduct.bandwidth,
                };
                let sender = Sender::new(&config, now);
                let keys = agreed.security.sender.take();
                Ok(Self::Sending(Box::new(Sending {
                    sender,
                    keys,
                    source,
                    line: usize::MAX,
                    hurries: false,
                    refreshes: Refreshes::default(),
                })))
            }
            Role::Receive(drain) => {
                let keys = agreed.security.receiver.take();
                stats.encryption.store(match agreed.security.receive {
                    KeyState::Unsecured | KeyState::Secured => {
                        encryption(keys.as_ref().map(ReceiveKeys::strength))
                    }
                    KeyState::NoSecret => Encryption::NoSecret,
                    _ => Encryption::BadSecret,
                });
                stats.latency_ms.store(agreed.receive_latency.into(), Relaxed);
                let config = ReceiverConfig {
                    destination: agreed.peer,
                    start: agreed.started,
                    initial: agreed.first_received,
                    tied_at: agreed.peer_clock.at,
                    tied_timestamp: agreed.peer_clock.timestamp,
                    latency: ms(agreed.receive_latency),
                    capacity: conduct.window,
                    peer_holds_off: agreed.peer_version >= HOLDS_OFF,
                    idle_timeout: conduct.idle_timeout,
                };
                let receiver = Receiver::new(&config, now);
                Ok(Self::Receiving(Box::new(Receiving {
                    receiver,
                    keys,
                    drain,
                    passphrase,
                    window: conduct.window,
                    refreshes: Refreshes::default(),
                    awaited: None,
                    reply: Vec::new(),
                    control: Vec::new(),
                })))
            }
        }
    }
}

impl Refreshes {
    fn note(&mut self, flag: KeyFlag) {
        if flag != self.flag {
            self.count += u32::from(self.flag != KeyFlag::Clear);
            self.flag = flag;
        }
    }
}

impl End {
    pub(super) fn lost(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), retryable: true }
    }

    fn silent() -> Self {
        Self::lost("the peer fell silent")
    }

    fn refused(refusal: &Refusal) -> Self {
        Self { reason: refusal.to_string(), retryable: !refusal.reject.is_fatal() }
    }
}

fn secret_trouble(state: KeyState) -> &'static str {
    match state {
        KeyState::BadSecret => "the passphrases differ",
        _ => "one side has a passphrase and the other has none",
    }
}

fn encryption(strength: Option<(Cipher, KeyLength)>) -> Encryption {
    match strength {
        None => Encryption::None,
        Some((Cipher::Ctr, KeyLength::Aes128)) => Encryption::Aes128Ctr,
        Some((Cipher::Ctr, KeyLength::Aes192)) => Encryption::Aes192Ctr,
        Some((Cipher::Ctr, KeyLength::Aes256)) => Encryption::Aes256Ctr,
        Some((Cipher::Gcm, KeyLength::Aes128)) => Encryption::Aes128Gcm,
        Some((Cipher::Gcm, KeyLength::Aes192)) => Encryption::Aes192Gcm,
        Some((Cipher::Gcm, KeyLength::Aes256)) => Encryption::Aes256Gcm,
    }
}

fn spread(cell: &telemetry::Spread, values: &Spread) {
    let word = |value: Option<u64>| value.unwrap_or(0).min(u32::MAX.into()) as u32;
    cell.set(word(values.latest()), word(values.least()), word(values.mean()), word(values.greatest()));
}

/// Follows a gauge that is looked at twice a second.
fn level(cell: &telemetry::Spread, value: u32) {
    let first = cell.max.load(Relaxed) == 0;
    let min = if first { value } else { cell.min.load(Relaxed).min(value) };
    let avg = if first { value } else { (cell.avg.load(Relaxed) * 15 + value) / 16 };
    cell.set(value, min, avg, cell.max.load(Relaxed).max(value));
}

/// From this version on libsrt sends nothing again twice within a round trip.
const HOLDS_OFF: Version = Version(0x0001_0404);
/// A full datagram of a lane.
const PAYLOAD: usize = 1316;
