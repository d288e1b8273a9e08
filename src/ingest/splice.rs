//! Joins the times of one source to those of the next, so that the stream's timeline goes on over reconnects: frames
//! enter with their source's times and leave with the stream's.

use crate::media::{Frame, Nanos, TICKS_PER_SECOND, Ticks};

/// The offset between a source's times and the stream's.
#[derive(Debug, Default)]
pub(super) struct Splice {
    offset: Ticks,
    fresh: bool,
    /// Latest decoding time that left, and when its frame arrived.
    last: Option<(Ticks, Nanos)>,
}

impl Splice {
    /// The next frame is the first of another source.
    pub(super) fn begin(&mut self) {
        self.fresh = true;
    }

    /// Puts a frame where it belongs on the stream's timeline. The first one of a source stands as far behind the last
    /// one before it as it arrived later.
    pub(super) fn place(&mut self, frame: &mut Frame) {
        if std::mem::take(&mut self.fresh) {
            let start = match self.last {
                Some((dts, at)) => dts + since(at, frame.arrival).max(LEAST),
                None => START,
            };
            self.offset = start.saturating_sub(frame.dts);
        }
        frame.dts = frame.dts.saturating_add(self.offset);
        frame.pts = frame.pts.saturating_add(self.offset);
        self.last = Some(match self.last {
            Some((dts, at)) if dts > frame.dts => (dts, at),
            _ => (frame.dts, frame.arrival),
        });
    }
}

fn since(then: Nanos, now: Nanos) -> Ticks {
    (u128::from(now.saturating_sub(then)) * TICKS_PER_SECOND as u128 / 1_000_000_000) as Ticks
}

/// Room for tracks that begin a little before the first frame that comes.
const START: Ticks = 2 * TICKS_PER_SECOND;
const LEAST: Ticks = TICKS_PER_SECOND / 5;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;

    fn placed(splice: &mut Splice, dts: Ticks, arrival: Nanos) -> (Ticks, Ticks) {
        let mut frame = Frame {
            tracks: Arc::default(),
            track: 0,
            pts: dts + 3000,
            dts,
            random_access: true,
            arrival,
            data: Bytes::new(),
        };
        splice.place(&mut frame);
        (frame.dts, frame.pts - frame.dts)
    }

    #[test]
    fn the_next_source_goes_on_where_the_clock_is() {
        let mut splice = Splice::default();
        splice.begin();
        assert_eq!(placed(&mut splice, 1 << 40, 0), (START, 3000));
        assert_eq!(placed(&mut splice, (1 << 40) + 90_000, 1_000_000_000), (START + 90_000, 3000));
        // A track that lags behind does not move the end.
        assert_eq!(placed(&mut splice, (1 << 40) + 45_000, 1_000_000_000).0, START + 45_000);
        splice.begin();
        assert_eq!(placed(&mut splice, 7, 3_000_000_000), (START + 270_000, 3000));
        splice.begin();
        assert_eq!(placed(&mut splice, -9, 3_000_000_000), (START + 270_000 + LEAST, 3000));
    }
}
