//! The other end of an RTSP connection whose media flows: what a server that records says, or a reader, enters; answers,
//! keepalives and goodbyes leave. Media do not pass here: they were packed for all connections.

use super::connections::{Farewell, Peer};
use crate::media::Nanos;
use crate::wire::rtsp::Status;
use crate::wire::rtsp::client::{self, Client};
use crate::wire::rtsp::server::{self, Action, Close, Server};

/// A server that records what we send.
pub struct RtspRecorder(Client);

/// A reader that is played to.
pub struct RtspReader(Server);

impl RtspRecorder {
    /// Goes on with a client that was told to record.
    pub fn new(client: Client) -> Self {
        Self(client)
    }

    fn events(&mut self) -> Result<(), Farewell> {
        while let Some(event) = self.0.next_event() {
            match event {
                client::Event::Failed(why) => {
                    let retryable =
                        !matches!(why, client::Failure::Unauthorized(_) | client::Failure::NoCredentials);
                    return Err(Farewell { reason: why.to_string(), retryable });
                }
                client::Event::Redirected(_) => {
                    return Err(Farewell {
                        reason: "the server names another place".into(),
                        retryable: true,
                    });
                }
                // Its RTCP says how it receives; TCP says more.
                _ => {}
            }
        }
        Ok(())
    }
}

impl Peer for RtspRecorder {
    fn hear(&mut self, bytes: &[u8], now: Nanos, reply: &mut Vec<u8>) -> Result<(), Farewell> {
        self.0.push(bytes, now);
        loop {
            self.events()?;
            if !self.0.is_backed_up() {
                break;
            }
            let before = self.0.buffer().len();
            self.0.read(now);
            if self.0.buffer().len() == before {
                break;
            }
        }
        self.0.take_output(reply);
        Ok(())
    }

    fn tick(&mut self, now: Nanos, reply: &mut Vec<u8>) -> Result<(), Farewell> {
        self.0.tick(now);
        self.0.take_output(reply);
        self.events()
    }

    fn next_due(&self) -> Option<Nanos> {
        Some(self.0.deadline()).filter(|due| *due < Nanos::MAX)
    }

    fn part(&mut self, reply: &mut Vec<u8>) {
        self.0.close(0);
        self.0.take_output(reply);
    }
}

impl RtspReader {
    /// Goes on with a connection that was told to play.
    pub fn new(server: Server) -> Self {
        Self(server)
    }

    fn events(&mut self, now: Nanos) -> Result<(), Farewell> {
        while let Some(event) = self.0.next_event() {
            match event {
                // After a pause; where it goes on is not known here, and RTP-Info may say nothing (RFC 2326, 12.33).
                server::Event::Ask(ask) if ask.action == Action::Play => self.0.play(&[]),
                server::Event::Ask(_) => self.0.refuse(Status::INVALID_STATE, now),
                server::Event::TornDown => {
                    return Err(Farewell { reason: "it left".into(), retryable: false });
                }
                server::Event::Closed(why) => {
                    let retryable = why != Close::Malformed;
                    return Err(Farewell { reason: why.to_string(), retryable });
                }
                server::Event::Paused | server::Event::Data { .. } => {}
            }
        }
        Ok(())
    }
}

impl Peer for RtspReader {
    fn hear(&mut self, bytes: &[u8], now: Nanos, reply: &mut Vec<u8>) -> Result<(), Farewell> {
        self.0.push(bytes, now);
        let ended = loop {
            let ended = self.events(now);
            if ended.is_err() || !self.0.is_backed_up() {
                break ended;
            }
            let before = self.0.buffer().len();
            self.0.read(now);
            if self.0.buffer().len() == before {
                break Ok(());
            }
        };
        self.0.take_output(reply);
        ended
    }

    fn tick(&mut self, now: Nanos, reply: &mut Vec<u8>) -> Result<(), Farewell> {
        self.0.tick(now);
        let ended = self.events(now);
        self.0.take_output(reply);
        ended
    }

    fn next_due(&self) -> Option<Nanos> {
        Some(self.0.deadline()).filter(|due| *due < Nanos::MAX)
    }

    fn is_playing(&self) -> bool {
        self.0.is_playing()
    }

    fn touch(&mut self, now: Nanos) {
        self.0.touch(now);
    }

    fn part(&mut self, _reply: &mut Vec<u8>) {}
}
