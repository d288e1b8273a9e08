//! Frames of a stream enter, the lane of RTMP messages that all its outputs share fills. Never looks at an output.

use super::order::Order;
use super::{FlvConfig, FlvMessage, FlvMux};
use crate::hub::{LaneWriter, Pulse};
use crate::media::{Frame, Message, Nanos};
use crate::mux::Maker;

/// Fills one lane of messages.
pub struct RtmpMaker {
    mux: FlvMux,
    order: Order,
    writer: LaneWriter<Message>,
    /// Scratch.
    made: Vec<FlvMessage>,
}

impl RtmpMaker {
    /// Fills `writer`'s lane with messages on this message stream, in chunks of [`CHUNK_SIZE`].
    pub fn new(stream: u32, writer: LaneWriter<Message>) -> Self {
        let mux = FlvMux::new(FlvConfig { chunk_size: CHUNK_SIZE, stream });
        Self { mux, order: Order::default(), writer, made: Vec::new() }
    }
}

impl Maker for RtmpMaker {
    fn wants_frames(&self) -> bool {
        true
    }

    fn frame(&mut self, frame: &Frame) {
        let Self { mux, order, writer, made } = self;
        mux.push(frame, made);
        let both = mux.carries_both();
        for message in made.drain(..) {
            order.push(message, both, &mut |message| write(writer, message));
        }
    }

    fn flush(&mut self, oldest: Nanos) -> u32 {
        let Self { order, writer, .. } = self;
        order.flush(oldest.saturating_sub(WAIT), &mut |message| write(writer, message))
    }

    fn waiting_since(&self) -> Option<Nanos> {
        self.order.waiting_since().map(|since| since.saturating_add(WAIT))
    }

    fn commit(&mut self, now: Nanos) -> bool {
        self.writer.commit(now)
    }

    fn pulses(&self, each: &mut dyn FnMut(&Pulse)) {
        each(self.writer.lane().pulse());
    }
}

fn write(writer: &mut LaneWriter<Message>, message: FlvMessage) {
    let FlvMessage { dts, arrival, bytes, setup: preface, .. } = message;
    if preface.is_some() {
        let position = writer.next_position();
        writer.mark_random_access(position);
    }
    writer.push(Message { bytes, arrival, dts, preface });
}

/// How long a message waits for one that is decoded before it, beyond what every maker may wait.
const WAIT: Nanos = 90_000_000;
/// Large enough that most messages are one chunk; servers of all kinds take it.
pub const CHUNK_SIZE: u32 = 60_000;
