//! The other end of an RTMP connection that is published to: what it says enters, acknowledgements, answers to pings and
//! its refusals leave. Media do not pass here: they were chunked for all connections.

use super::connections::{Farewell, Peer};
use crate::media::Nanos;
use crate::wire::rtmp::{Client, ClientEvent, Error};

/// A server that lets us publish.
pub struct RtmpPeer(Client);

impl RtmpPeer {
    /// Goes on with a client that was told to publish.
    pub fn new(client: Client) -> Self {
        Self(client)
    }
}

impl Peer for RtmpPeer {
    fn hear(&mut self, bytes: &[u8], _: Nanos, reply: &mut Vec<u8>) -> Result<(), Farewell> {
        let mut input = bytes;
        loop {
            match self.0.read(&mut input) {
                Ok(Some(ClientEvent::Ended)) => {
                    return Err(Farewell { reason: "the server ended the stream".into(), retryable: true });
                }
                // What it says beside that changes nothing: it is still publishing.
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(why) => {
                    let retryable = !matches!(why, Error::Auth(_) | Error::Redirected(_));
                    return Err(Farewell { reason: why.to_string(), retryable });
                }
            }
        }
        reply.append(&mut self.0.take_output());
        Ok(())
    }

    fn tick(&mut self, _: Nanos, _: &mut Vec<u8>) -> Result<(), Farewell> {
        Ok(())
    }

    fn next_due(&self) -> Option<Nanos> {
        None
    }

    fn part(&mut self, reply: &mut Vec<u8>) {
        self.0.close();
        reply.append(&mut self.0.take_output());
    }
}
