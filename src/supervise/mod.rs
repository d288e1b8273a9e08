//! Keeps one input or output alive: events and time enter, states and actions leave. Knows no protocol, holds
//! no socket, no clock and no randomness.

mod backoff;
mod budget;
mod error;
mod keeper;
mod machine;

pub use backoff::{Backoff, InvalidBackoff};
pub use budget::{DialBudget, Grant};
pub use error::Class;
pub use keeper::Keeper;
pub use machine::{Action, Attempt, Event, Machine, Policy, Role, UNREAD};

/// Nanoseconds on the caller's monotonic clock; only differences matter.
pub type Nanos = u64;
