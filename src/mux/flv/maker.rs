//! Frames of a stream enter, the lane of RTMP messages that all its outputs share fills. Never looks at an output.

use super::{FlvConfig, FlvMessage, FlvMux};
use crate::hub::{LaneWriter, Pulse};
use crate::media::{Frame, Message, Nanos};
use crate::mux::Maker;

/// Fills one lane of messages.
pub struct RtmpMaker {
    mux: FlvMux,
    writer: LaneWriter<Message>,
    /// Scratch.
    made: Vec<FlvMessage>,
}

impl RtmpMaker {
    /// Fills `writer`'s lane with messages on this message stream, in chunks of [`CHUNK_SIZE`].
    pub fn new(stream: u32, writer: LaneWriter<Message>) -> Self {
        let mux = FlvMux::new(FlvConfig { chunk_size: CHUNK_SIZE, stream });
        Self { mux, writer, made: Vec::new() }
    }
}

impl Maker for RtmpMaker {
    fn wants_frames(&self) -> bool {
        true
    }

    fn frame(&mut self, frame: &Frame) {
        self.mux.push(frame, &mut self.made);
        for FlvMessage { dts, arrival, bytes, setup: preface, .. } in self.made.drain(..) {
            if preface.is_some() {
                let position = self.writer.next_position();
                self.writer.mark_random_access(position);
            }
            self.writer.push(Message { bytes, arrival, dts, preface });
        }
    }

    fn commit(&mut self, now: Nanos) -> bool {
        self.writer.commit(now)
    }

    fn pulses(&self, each: &mut dyn FnMut(&Pulse)) {
        each(self.writer.lane().pulse());
    }
}

/// Large enough that most messages are one chunk; servers of all kinds take it.
pub const CHUNK_SIZE: u32 = 60_000;
