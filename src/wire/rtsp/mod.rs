//! RTSP 1.0 (RFC 2326) with session descriptions and authentication: bytes and time enter, bytes and events leave.
//! No sockets, clock or randomness; random bytes are arguments.
//!
//! Messages are read here and not by rtsp-types, which refuses what cameras send: answers without a reason or with bare
//! LF, URLs that are none, Latin-1; it also reads a message from its start whenever a piece comes. The tests hold both
//! against each other.

mod auth;
pub mod client;
mod decoder;
mod headers;
mod message;
mod sdp;
pub mod server;

pub use auth::{Credentials, Nonces, Presented, Responder, Unanswerable};
pub use client::Client;
pub use decoder::{BODY_MOST, Decoder, HEAD_MOST, Item, Malformed};
pub use headers::{Lower, RtpInfo, SESSION_TIMEOUT, Session, Transport};
pub use message::{Headers, Request, Response, Status};
pub use sdp::{Description, Format, MEDIA_MOST, Malformed as MalformedDescription, Media, resolve};
pub use server::Server;
