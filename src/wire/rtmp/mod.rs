//! RTMP (Adobe RTMP 1.0, Enhanced RTMP v2): bytes and time enter, bytes, messages and events leave. No sockets, clock or
//! randomness; random bytes are arguments. What a peer can make it hold is bounded, before and after it said who it is.

pub mod amf0;
mod auth;
mod capabilities;
mod chunk;
mod client;
mod handshake;
mod link;
mod message;
mod server;

pub use auth::{AuthQuery, BadAuth, Credentials, answer};
pub use capabilities::{FOUR_CCS, FourCcs};
pub use chunk::{BadChunk, CHUNK_SIZE, Limits, Message, Reader, kind, write_chunked, write_message};
pub use client::{Client, ClientConfig, ClientEvent, Purpose};
pub use handshake::{Answerer, BadHello, Caller};
pub use link::{ANSWERS_MOST, Error};
pub use message::{BadMessage, Command, Control, Parts, User, data_message, read_data};
pub use server::{Request, Server, ServerConfig, ServerEvent, Turned};

#[cfg(test)]
mod peer;
#[cfg(test)]
mod tests;
