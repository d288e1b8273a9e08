//! The state of an input or output: what supervision decides and control shows.

use std::time::SystemTime;

use serde::Serialize;

/// What the operator asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// Keep it alive.
    Running,
    /// Leave it at rest.
    Stopped,
}

/// Where a supervised input or output stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum State {
    /// At rest: stopped by the operator, or listening and nothing has ever arrived.
    Idle,
    /// An attempt is under way: name resolution, socket, handshake.
    Connecting,
    /// Input: packets arrive. Output: the peer acknowledged payload within the last 3 s.
    Live,
    /// Output without a return path: datagrams leave, nobody can say whether they arrive.
    Sending,
    /// Output: connected, but its input has nothing to send.
    Starved,
    /// It worked and then nothing moved for `stall_after`.
    Stalled,
    /// The last attempt failed; the next one is scheduled.
    Backoff,
    /// A retry will not help by itself: wrong configuration, or no attempts left.
    Failed,
}

/// A snapshot of one supervised object.
#[derive(Debug, Clone)]
pub struct Status {
    /// Where it stands.
    pub state: State,
    /// Why, in words for an operator; empty when there is nothing to say. Never holds a secret.
    pub reason: String,
    /// Since when it has been in this state.
    pub since: SystemTime,
    /// When it last became `Live` or `Sending`.
    pub started_at: Option<SystemTime>,
    /// Attempts after the first one since it was started.
    pub reconnect_count: u64,
    /// The last error, kept after recovery.
    pub last_error: Option<String>,
}

impl Status {
    /// The status of an object that was just made.
    pub fn idle(now: SystemTime) -> Self {
        Self {
            state: State::Idle,
            reason: String::new(),
            since: now,
            started_at: None,
            reconnect_count: 0,
            last_error: None,
        }
    }
}
