//! What an error says about trying again. Every room's errors map to it; nothing here acts on it.

/// What an error says about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The world may change by itself: a peer that is down, a name that does not resolve, a full buffer.
    Retry,
    /// Somebody has to change something: a path outside the roots, a refused password, a port in use.
    Fatal,
    /// Our own mistake; it is logged as an error and treated like [`Class::Fatal`].
    Bug,
}
