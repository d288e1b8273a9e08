//! Packet numbers, time and KMRSPs enter; key flags, stream keys and KMREQs leave (draft-sharabayko-srt-01, 6.1.6).
//! Never encrypts a payload itself, and never forgets a key that a retransmit may still need.

use super::material::{self, Announced};
use super::{Cipher, DataKey, Kek, KeyLength, KeyState, Sek};
use crate::wire::srt::{KeyFlag, Nanos, Seq};

/// When the stream's key is changed (`kmrefreshrate`, `kmpreannounce`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshPlan {
    every: u32,
    announce: u32,
}

/// The keys that one side encrypts with, and their changes.
///
/// Per new packet: [`Self::next_flag`]; if [`Self::wants_key`] then, give it random bytes with
/// [`Self::announce`], and send what [`Self::poll`] gives until the peer's KMRSP came. Per retransmit:
/// [`Self::flag_of`]. The flag names the key for [`Self::key`].
#[derive(Debug)]
pub struct SendKeys {
    kek: Kek,
    cipher: Cipher,
    length: KeyLength,
    legacy: bool,
    plan: RefreshPlan,
    active: Slot,
    /// The key before `active`, or the one after it once that is announced.
    other: Option<Slot>,
    /// Where the packets with the active key begin; `None` from the first packet on.
    since: Option<Seq>,
    /// Packets encrypted with the active key.
    count: u32,
    announced: Option<Announcement>,
    state: KeyState,
}

#[derive(Debug)]
struct Slot {
    flag: KeyFlag,
    sek: Sek,
    key: DataKey,
}

#[derive(Debug)]
struct Announcement {
    message: Vec<u8>,
    due: Nanos,
    confirmed: bool,
}

impl RefreshPlan {
    /// A new key `every` so many packets, told `announce` packets before.
    ///
    /// # Errors
    /// What is wrong: `every` is 0 or above 2^28, or `announce` is 0 or more than half of `every`.
    pub const fn new(every: u32, announce: u32) -> Result<Self, &'static str> {
        if every == 0 || every > 1 << 28 {
            return Err("kmrefreshrate is outside 1 to 268435456 packets");
        }
        // libsrt's rule, so that one announcement ends before the next begins
        if announce == 0 || announce > (every - 1) / 2 {
            return Err("kmpreannounce is outside 1 to (kmrefreshrate - 1) / 2 packets");
        }
        Ok(Self { every, announce })
    }
}

impl Default for RefreshPlan {
    /// libsrt's: every 2^24 packets, told 2^12 packets before.
    fn default() -> Self {
        Self { every: 1 << 24, announce: 1 << 12 }
    }
}

impl SendKeys {
    pub(crate) fn new(
        kek: &Kek,
        cipher: Cipher,
        length: KeyLength,
        first: (KeyFlag, &Sek),
        plan: RefreshPlan,
        legacy: bool,
    ) -> Self {
        let (flag, sek) = first;
        let key = DataKey::new(cipher, length, kek.salt, sek, legacy);
        Self {
            kek: kek.clone(),
            cipher,
            length,
            legacy,
            plan,
            active: Slot { flag, sek: sek.clone(), key },
            other: None,
            since: None,
            count: 0,
            announced: None,
            state: KeyState::Secured,
        }
    }

    /// The key flag of the new packet `sequence`. Asked once for each, in their order.
    ///
    /// A key that was announced takes over when its time has come and the peer has confirmed it: a receiver
    /// without it would lose everything. One that never confirms delays the change by one more period at most.
    #[inline]
    pub fn next_flag(&mut self, sequence: Seq) -> KeyFlag {
        if self.count >= self.plan.every {
            self.change(sequence);
        }
        self.count = self.count.saturating_add(1);
        self.active.flag
    }

    /// The key flag that the earlier packet `sequence` had; `None` if its key is gone and it cannot be sent again.
    #[inline]
    pub fn flag_of(&self, sequence: Seq) -> Option<KeyFlag> {
        match self.since {
            Some(since) if sequence.is_before(since) => {
                // Once the next key is announced, the one before the active key is gone.
                let old = self.other.as_ref().filter(|_| self.announced.is_none())?;
                Some(old.flag)
            }
            _ => Some(self.active.flag),
        }
    }

    /// The stream key of a flag, if there is one.
    #[inline]
    pub fn key(&self, flag: KeyFlag) -> Option<&DataKey> {
        if self.active.flag == flag {
            return Some(&self.active.key);
        }
        self.other.as_ref().filter(|slot| slot.flag == flag).map(|slot| &slot.key)
    }

    /// Bytes that a payload grows by when it is encrypted.
    pub const fn growth(&self) -> usize {
        self.active.key.growth()
    }

    /// The time to announce the next key has come: [`Self::announce`] wants random bytes.
    #[inline]
    pub const fn wants_key(&self) -> bool {
        self.announced.is_none() && self.count > self.plan.every - self.plan.announce
    }

    /// Makes the next key out of `random` and begins to announce it; does nothing while one is announced.
    pub fn announce(&mut self, random: [u8; 32], now: Nanos) {
        if self.announced.is_some() {
            return;
        }
        let sek = Sek::new(random);
        let (flag, pair) = match self.active.flag {
            KeyFlag::Odd => (KeyFlag::Even, Announced::Both { even: &sek, odd: &self.active.sek }),
            _ => (KeyFlag::Odd, Announced::Both { even: &self.active.sek, odd: &sek }),
        };
        // Both keys, so that a receiver that missed the last change is whole again. The salt stays, and the
        // key derived from it.
        let message = material::write(&self.kek, self.cipher, self.length, &pair);
        let key = DataKey::new(self.cipher, self.length, self.kek.salt, &sek, self.legacy);
        self.other = Some(Slot { flag, sek, key });
        self.announced = Some(Announcement { message, due: now, confirmed: false });
    }

    /// The body of a KMREQ if one is due: until the peer's answer, each 1.5 round-trip times (nanoseconds), at
    /// least 10 ms.
    pub fn poll(&mut self, now: Nanos, rtt: Nanos) -> Option<&[u8]> {
        let announced = self.announced.as_mut().filter(|sent| !sent.confirmed && sent.due <= now)?;
        announced.due = now.saturating_add(rtt.saturating_add(rtt / 2).max(SOONEST));
        Some(&announced.message)
    }

    /// When [`Self::poll`] has something to say.
    pub fn next_due(&self) -> Option<Nanos> {
        self.announced.as_ref().filter(|sent| !sent.confirmed).map(|sent| sent.due)
    }

    /// Takes the body of a KMRSP: the announced message itself says that the peer has the keys, one word says why
    /// not. Anything else changes nothing.
    pub fn handle(&mut self, response: &[u8]) -> KeyState {
        if let Some(announced) = self.announced.as_mut() {
            if announced.message == response {
                announced.confirmed = true;
                self.state = KeyState::Secured;
            } else if let Some(state @ (KeyState::NoSecret | KeyState::BadSecret | KeyState::BadCipher)) =
                KeyState::parse(response)
            {
                self.state = state;
            }
        }
        self.state
    }

    /// Whether the peer can follow: `Secured`, or why it could not take the last key.
    pub const fn state(&self) -> KeyState {
        self.state
    }

    /// The cipher and how long the keys are.
    pub const fn strength(&self) -> (Cipher, KeyLength) {
        (self.cipher, self.length)
    }

    fn change(&mut self, sequence: Seq) {
        let overdue = self.count >= self.plan.every.saturating_mul(2);
        let ready = self.announced.as_ref().is_some_and(|sent| sent.confirmed || overdue);
        if let Some(next) = self.other.take_if(|_| ready) {
            let old = std::mem::replace(&mut self.active, next);
            self.other = Some(old);
            self.since = Some(sequence);
            self.count = 0;
            self.announced = None;
        }
    }
}

const SOONEST: Nanos = 10_000_000;

#[cfg(test)]
mod tests {
    use super::super::material::Seks;
    use super::super::{KeyMaterial, Passphrase, ReceiveKeys, SALT, derive};
    use super::*;
    use crate::wire::srt::crypto::KeyReply;

    const RTT: Nanos = 40_000_000;

    fn pair(every: u32, announce: u32) -> (SendKeys, ReceiveKeys) {
        let kek = derive(&Passphrase::new("open sesame!").unwrap(), [9; SALT]);
        let first = Seks { even: Some(Sek::new([1; 32])), odd: None };
        let plan = RefreshPlan::new(every, announce).unwrap();
        let even = (KeyFlag::Even, first.even.as_ref().unwrap());
        let sender = SendKeys::new(&kek, Cipher::Ctr, KeyLength::Aes128, even, plan, false);
        (sender, ReceiveKeys::new(&kek, Cipher::Ctr, KeyLength::Aes128, &first, false))
    }

    fn confirm(sender: &mut SendKeys, receiver: &mut ReceiveKeys, now: Nanos) {
        let request = sender.poll(now, RTT).expect("an announcement").to_vec();
        let KeyReply::Answer(answer) = receiver.handle(&request) else { panic!("no answer") };
        assert_eq!(sender.handle(&answer), KeyState::Secured);
    }

    fn send(sender: &mut SendKeys, numbers: std::ops::Range<u32>) {
        for number in numbers {
            sender.next_flag(Seq::new(number));
        }
    }

    fn header(sequence: Seq, key: KeyFlag) -> [u8; 16] {
        crate::wire::srt::DataHeader {
            sequence,
            boundary: crate::wire::srt::Boundary::Solo,
            in_order: false,
            key,
            retransmitted: false,
            message: 1,
            timestamp: 0,
            destination: crate::wire::srt::SocketId(1),
        }
        .to_bytes()
    }

    #[test]
    fn a_plan_leaves_room_between_announcements() {
        assert!(RefreshPlan::new(1000, 400).is_ok() && RefreshPlan::new(1001, 500).is_ok());
        for (every, announce) in [(0, 0), (1000, 0), (1000, 500), (1 << 29, 1), (2, 1)] {
            assert!(RefreshPlan::new(every, announce).is_err(), "{every} {announce}");
        }
    }

    #[test]
    fn keys_change_over_many_periods_and_across_the_wrap() {
        let (mut sender, mut receiver) = pair(100, 40);
        let first = Seq::new(Seq::COUNT - 450);
        let mut flags = Vec::new();
        for at in 0..1000 {
            let sequence = first + at;
            if sender.wants_key() {
                sender.announce([at as u8; 32], 0);
                confirm(&mut sender, &mut receiver, 0);
            }
            let flag = sender.next_flag(sequence);
            flags.push(flag);
            assert_eq!(sender.flag_of(sequence), Some(flag));
            let header = header(sequence, flag);
            let mut sealed = [0; 8];
            sender.key(flag).unwrap().seal(&header, b"a packet", &mut sealed).unwrap();
            assert_eq!(receiver.open(&header, flag, &mut sealed), Some(8));
            assert_eq!(&sealed, b"a packet");
        }
        for (at, flag) in flags.iter().enumerate() {
            let want = if at / 100 % 2 == 0 { KeyFlag::Even } else { KeyFlag::Odd };
            assert_eq!(*flag, want, "packet {at}");
        }
    }

    #[test]
    fn a_retransmit_keeps_its_key_while_that_lives() {
        let (mut sender, mut receiver) = pair(100, 40);
        let at = |n: u32| Seq::new(n);
        send(&mut sender, 0..61);
        assert!(sender.wants_key());
        sender.announce([2; 32], 0);
        confirm(&mut sender, &mut receiver, 0);
        send(&mut sender, 61..110);
        assert_eq!(sender.flag_of(at(99)), Some(KeyFlag::Even));
        assert_eq!(sender.flag_of(at(100)), Some(KeyFlag::Odd));
        send(&mut sender, 110..161);
        assert_eq!(sender.flag_of(at(99)), Some(KeyFlag::Even));
        assert!(sender.wants_key());
        sender.announce([3; 32], 0);
        assert_eq!(sender.flag_of(at(99)), None);
        assert_eq!(sender.flag_of(at(160)), Some(KeyFlag::Odd));
    }

    #[test]
    fn the_old_key_goes_on_until_the_peer_has_the_new_one() {
        let (mut sender, mut receiver) = pair(100, 40);
        send(&mut sender, 0..61);
        sender.announce([2; 32], 1000);
        assert_eq!(sender.next_due(), Some(1000));
        assert!(sender.poll(999, RTT).is_none());
        assert!(sender.poll(1000, RTT).is_some());
        assert!(sender.poll(1000 + RTT, RTT).is_none());
        assert_eq!(sender.next_due(), Some(1000 + RTT * 3 / 2));
        for n in 61..150 {
            assert_eq!(sender.next_flag(Seq::new(n)), KeyFlag::Even);
        }
        confirm(&mut sender, &mut receiver, 1000 + 2 * RTT);
        assert_eq!(sender.next_due(), None);
        assert_eq!(sender.next_flag(Seq::new(150)), KeyFlag::Odd);
        assert_eq!(sender.flag_of(Seq::new(149)), Some(KeyFlag::Even));
    }

    #[test]
    fn a_peer_that_never_answers_delays_the_change_by_one_period() {
        let (mut sender, _) = pair(100, 40);
        for n in 0..200 {
            if sender.wants_key() {
                sender.announce([2; 32], 0);
            }
            assert_eq!(sender.next_flag(Seq::new(n)), KeyFlag::Even);
        }
        assert_eq!(sender.next_flag(Seq::new(200)), KeyFlag::Odd);
    }

    #[test]
    fn a_refusal_is_told_and_a_strange_answer_changes_nothing() {
        let (mut sender, _) = pair(100, 40);
        assert_eq!(sender.handle(&KeyState::BadSecret.to_bytes()), KeyState::Secured, "nothing was asked");
        send(&mut sender, 0..61);
        sender.announce([2; 32], 0);
        assert_eq!(sender.handle(b"anything"), KeyState::Secured);
        assert!(sender.next_due().is_some());
        assert_eq!(sender.handle(&KeyState::BadSecret.to_bytes()), KeyState::BadSecret);
        assert_eq!(sender.state(), KeyState::BadSecret);
    }

    #[test]
    fn an_announcement_holds_both_keys_under_the_same_salt() {
        let (mut sender, _) = pair(100, 40);
        send(&mut sender, 0..61);
        sender.announce([2; 32], 0);
        let message = sender.poll(0, RTT).unwrap().to_vec();
        let read = KeyMaterial::parse(&message).unwrap();
        assert_eq!(read.salt, [9; SALT]);
        let seks = read.unwrap(&derive(&Passphrase::new("open sesame!").unwrap(), [9; SALT])).unwrap();
        assert_eq!(seks.even.unwrap().bytes(KeyLength::Aes128), [1; 16]);
        assert_eq!(seks.odd.unwrap().bytes(KeyLength::Aes128), [2; 16]);
    }
}
