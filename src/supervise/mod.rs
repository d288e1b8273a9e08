//! Keeps one input or output alive: events and time enter, states and actions leave. Knows no protocol.
