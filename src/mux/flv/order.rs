//! Messages of pictures and of sound enter as they come, and leave in the order of decoding, as players and servers
//! expect them; none waits long for one that may come before it. Never changes a message.

use std::collections::VecDeque;

use super::{FlvKind, FlvMessage};
use crate::media::Nanos;

/// Puts messages of one stream in order.
#[derive(Debug, Default)]
pub(super) struct Order {
    pictures: VecDeque<FlvMessage>,
    sound: VecDeque<FlvMessage>,
}

impl Order {
    /// Takes a message in; `both` kinds are expected.
    pub(super) fn push(&mut self, message: FlvMessage, both: bool, emit: &mut impl FnMut(FlvMessage)) {
        let waiting = self.pictures.len() + self.sound.len();
        if message.kind == FlvKind::Setup || !both || waiting >= WAITING {
            // What it says holds for what comes behind it only.
            while let Some(first) = self.first() {
                emit(first);
            }
            return emit(message);
        }
        match message.kind {
            FlvKind::Audio => self.sound.push_back(message),
            _ => self.pictures.push_back(message),
        }
        while !self.pictures.is_empty() && !self.sound.is_empty() {
            self.first().into_iter().for_each(&mut *emit);
        }
    }

    /// Lets go what came before `oldest`, and what is to be decoded before that; how many messages.
    pub(super) fn flush(&mut self, oldest: Nanos, emit: &mut impl FnMut(FlvMessage)) -> u32 {
        let mut count = 0;
        while self.waiting_since().is_some_and(|since| since < oldest) {
            self.first().into_iter().for_each(&mut *emit);
            count += 1;
        }
        count
    }

    /// When the first one that waits came.
    pub(super) fn waiting_since(&self) -> Option<Nanos> {
        [self.pictures.front(), self.sound.front()].into_iter().flatten().map(|message| message.arrival).min()
    }

    /// The one that is decoded first.
    fn first(&mut self) -> Option<FlvMessage> {
        let dts = |queue: &VecDeque<FlvMessage>| queue.front().map(|message| message.dts);
        match (dts(&self.pictures), dts(&self.sound)) {
            (Some(picture), Some(sound)) if sound < picture => self.sound.pop_front(),
            (Some(_), _) => self.pictures.pop_front(),
            (None, _) => self.sound.pop_front(),
        }
    }
}

/// Messages that wait: those of a stream whose sound is seconds late do not.
const WAITING: usize = 64;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn message(kind: FlvKind, dts: i64, arrival: Nanos) -> FlvMessage {
        FlvMessage { kind, dts, timestamp: 0, arrival, bytes: Bytes::new(), setup: None }
    }

    #[test]
    fn pictures_and_sound_leave_by_decoding_time_and_none_waits_for_ever() {
        let mut order = Order::default();
        let mut out = Vec::new();
        // Sound comes 60 ticks after the pictures that it belongs to.
        for i in 0..10 {
            order.push(message(FlvKind::Inter, 40 * i, i as u64), true, &mut |m| out.push((m.kind, m.dts)));
            if i >= 2 {
                let sound = message(FlvKind::Audio, 40 * (i - 2) + 20, i as u64);
                order.push(sound, true, &mut |m| out.push((m.kind, m.dts)));
            }
        }
        assert!(out.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{out:?}");
        assert_eq!(out.len(), 16);
        assert_eq!(order.waiting_since(), Some(8));
        assert_eq!(order.flush(9, &mut |m| out.push((m.kind, m.dts))), 1);
        order.push(message(FlvKind::Setup, 0, 9), true, &mut |m| out.push((m.kind, m.dts)));
        let end: Vec<FlvKind> = out.iter().rev().take(2).map(|m| m.0).collect();
        assert_eq!((end, order.waiting_since()), (vec![FlvKind::Setup, FlvKind::Inter], None));
    }

    #[test]
    fn a_stream_of_one_kind_waits_for_nothing_and_a_late_kind_is_not_waited_for() {
        let mut order = Order::default();
        let mut count = 0;
        order.push(message(FlvKind::Inter, 0, 0), false, &mut |_| count += 1);
        assert_eq!(count, 1);
        for i in 0..1000 {
            order.push(message(FlvKind::Inter, i, 0), true, &mut |_| count += 1);
        }
        assert!(count > 900);
    }
}
