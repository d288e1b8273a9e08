//! Everything that leaves a shard: the UDP-like outputs, the connections and the SRT sessions, walked one after the
//! other.

use crate::egress::{self, ConnectionCommand, Connections, Fanout};
use crate::hub::{Outflow, Schedule, StreamKey};
use crate::media::Nanos;
use crate::net::Token;
use crate::port::{self, Ports};

/// The outflow of this engine's shards.
pub(crate) struct Outlets {
    fanout: Fanout,
    connections: Connections,
    ports: Ports,
}

/// What can be asked of it.
pub(crate) enum OutletCommand {
    /// Of the UDP-like outputs.
    Fanout(egress::Command),
    /// Of the connections.
    Connection(ConnectionCommand),
    /// Of the SRT sessions.
    Port(port::Command),
}

impl Outlets {
    pub(super) fn new(fanout: Fanout, connections: Connections, ports: Ports) -> Self {
        Self { fanout, connections, ports }
    }
}

impl Outflow for Outlets {
    type Command = OutletCommand;

    fn handle(&mut self, command: OutletCommand, now: Nanos) {
        match command {
            OutletCommand::Fanout(command) => self.fanout.handle(command, now),
            OutletCommand::Connection(command) => self.connections.handle(command, now),
            OutletCommand::Port(command) => self.ports.handle(command, now),
        }
    }

    fn arrived(&mut self, stream: StreamKey, hurry: bool, now: Nanos) {
        self.fanout.arrived(stream, hurry, now);
        self.connections.arrived(stream, hurry, now);
        self.ports.arrived(stream, hurry, now);
    }

    fn rang(&mut self, now: Nanos) {
        self.fanout.rang(now);
        self.connections.rang(now);
        self.ports.rang(now);
    }

    fn readable(&mut self, token: Token, now: Nanos) {
        if Connections::owns(token) {
            self.connections.readable(token, now);
        } else {
            self.ports.readable(token, now);
        }
    }

    fn walk(&mut self, now: Nanos, refresh: &mut dyn FnMut(StreamKey) -> u32) {
        // What one of them polls, the other has to hear of.
        let mut polled = Vec::new();
        let mut noted = |stream| {
            let datagrams = refresh(stream);
            if datagrams > 0 {
                polled.push(stream);
            }
            datagrams
        };
        self.fanout.walk(now, &mut noted);
        self.connections.walk(now, &mut noted);
        self.ports.walk(now, &mut noted);
        for stream in polled {
            self.arrived(stream, false, now);
        }
    }

    fn next_due(&mut self) -> Option<Nanos> {
        [self.fanout.next_due(), self.connections.next_due(), self.ports.next_due()]
            .into_iter()
            .flatten()
            .min()
    }

    fn schedule(&self, stream: StreamKey) -> Schedule {
        let all =
            [self.fanout.schedule(stream), self.connections.schedule(stream), self.ports.schedule(stream)];
        Schedule {
            immediate: all.iter().any(|schedule| schedule.immediate),
            ticks_per_second: all.iter().map(|schedule| schedule.ticks_per_second).max().unwrap_or(0),
        }
    }

    fn set_ticking(&mut self, stream: StreamKey, ticking: bool, now: Nanos) {
        self.fanout.set_ticking(stream, ticking, now);
        self.connections.set_ticking(stream, ticking, now);
        self.ports.set_ticking(stream, ticking, now);
    }

    fn finish(&mut self, now: Nanos) {
        self.fanout.finish(now);
        self.connections.finish(now);
    }

    fn publish(&mut self, now: Nanos) {
        self.fanout.publish(now);
        self.connections.publish(now);
        self.ports.publish(now);
    }
}
