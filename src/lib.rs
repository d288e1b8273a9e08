//! Millrace takes live video in, keeps each stream once in memory, and copies its packets to thousands of outputs.
//!
//! # The way of a packet
//!
//! ```text
//!             ┌──────────── one shard owns this ────────────┐
//!  source ──▶ ingest ──▶ hub: the stream's `ts` lane ────────┬──▶ egress ──▶ UDP, RTP, file
//!  (url)      net+wire   (ring of refcounted blocks, index)  ├──▶ port ────▶ SRT (and SRT ──▶ port ──▶ ingest)
//!     ▲          ▲           │                               └──▶ mux: derived lanes, each made once
//!     │          │           │                                    ├─ filtered ──▶ egress, port
//!   mux: frames of RTSP      │                                    └─ frames ──▶ RTMP, RTSP, MP4 ──▶ egress
//!   and RTMP (tasks)         └──▶ inspect (what is in the stream, is it healthy): never in the way
//!
//!  store (desired state) ──▶ app (start, stop) ──▶ supervise        control ◀── snapshots of telemetry
//! ```
//!
//! # The rooms, in the order a packet walks
//!
//! | room | what it does |
//! |---|---|
//! | [`net`] | sockets: batched UDP (recvmmsg, sendmmsg × GSO, GRO), multicast, routes, TCP, TLS; the home of `unsafe` |
//! | [`wire`] | sans-IO protocols: bytes and time in, bytes and events out |
//! | [`media`] | what travels: datagrams of transport packets, access units of tracks, and their timeline |
//! | [`ingest`] | one driver per kind of source; writes to the hub |
//! | [`hub`] | lanes, cursors, the shard loop: the only meeting place of ingest and egress |
//! | [`mux`] | makes derived lanes, each once: filtered ones, frames and what is made of them; and transport streams of frames |
//! | [`egress`] | one driver per kind of output: cohorts of datagrams, connections, files; reads from the hub |
//! | [`port`] | SRT sessions that share UDP sockets: they read lanes and feed streams |
//! | [`supervise`] | keeps one input or output alive; knows no protocol |
//! | [`inspect`] | health of a stream and the rules it keeps, what its metadata says, and where that says it looks |
//! | [`tak`] | Cursor-on-Target from that metadata: events, their XML and protobuf; certificates and data packages of TAK Servers |
//! | [`store`] | the desired state and the grammar of its urls; runs nothing |
//! | [`control`] | REST, events and figures; reads snapshots, sends commands, never waits for a shard |
//! | [`telemetry`] | states, counters and events that every room fills |
//! | [`config`] | the typed configuration file |
//! | [`app`] | the composition root: builds every room, dials, keeps the TCP ports that peers dial, owns the drain |
//!
//! `tests/architecture.rs` holds the directions of import against the source.

pub mod app;
pub mod config;
pub mod control;
pub mod egress;
pub mod hub;
pub mod ingest;
pub mod inspect;
pub mod media;
pub mod mux;
pub mod net;
pub mod port;
pub mod store;
pub mod supervise;
pub mod tak;
pub mod telemetry;
pub mod wire;
