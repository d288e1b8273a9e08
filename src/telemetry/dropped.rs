//! Tracks of a stream that an output leaves out, because its protocol has no slot for them. Filled by who looks at the
//! tracks, read by control.

use parking_lot::Mutex;
use serde::{Serialize, Serializer};

/// One track that is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DroppedTrack {
    /// Its name within the stream: the PID in a transport stream, a running number elsewhere.
    pub track: u16,
    /// What it is coded in.
    pub codec: &'static str,
    /// Why it is left out.
    pub reason: &'static str,
}

/// All of them. Costs no memory while there are none.
#[derive(Debug, Default)]
pub struct DroppedTracks(Mutex<Vec<DroppedTrack>>);

impl DroppedTracks {
    /// Shows these in place of the last ones; whether they are others.
    pub fn show(&self, dropped: Vec<DroppedTrack>) -> bool {
        let mut shown = self.0.lock();
        let others = *shown != dropped;
        *shown = dropped;
        others
    }

    /// Those that are left out now.
    pub fn all(&self) -> Vec<DroppedTrack> {
        self.0.lock().clone()
    }
}

impl Serialize for DroppedTracks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.all().serialize(serializer)
    }
}
