//! A fuzz target as a function: bytes become operations on a client and a server in memory, hostile input included.
//!
//! ```text
//!   operation = opcode (1 octet), then what it needs; missing octets read as 0, an empty input ends the run
//!   client ◄──carry──► server      raw octets, ends, resets and datagrams may be put in between at any time
//! ```
//!
//! Asserted: nothing panics; a connection fails only after hostile input; what a machine holds stays within its limits.

use std::collections::BTreeSet;

use quinn_proto::{Dir, Side, StreamId};

use super::code::Code;
use super::config::Config;
use super::connection::Connection;
use super::event::{Event, GoAway, RecvData, Role};
use super::memory::{MemoryTransport, carry};
use crate::http::request::{RequestHead, ResponseHead};

/// The most operations of one run.
const OPERATIONS_MAX: usize = 4096;

/// Limits small enough to be reached.
fn config() -> Config {
    Config {
        field_section_size_max: 1024,
        headers_len_max: 2048,
        pending_write_bytes_max: 512,
        undelivered_stream_bytes_max: 4096,
        undelivered_connection_bytes_max: 16 * 1024,
        unknown_streams_max: 8,
        ..Config::default()
    }
}

/// Runs the operations in `data`.
///
/// # Panics
/// When one of the assertions above fails; that is the finding.
pub fn h3_ops(data: &[u8]) {
    let mut input = Input(data);
    let mut world = World::new();
    let mut count = 0;
    while count < OPERATIONS_MAX && !input.0.is_empty() {
        world.operate(&mut input);
        world.client.settle(world.is_hostile);
        world.server.settle(world.is_hostile);
        count += 1;
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self) -> &'a [u8] {
        let count = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(count);
        self.0 = rest;
        bytes
    }

    fn request(&mut self) -> StreamId {
        StreamId::new(Side::Client, Dir::Bi, (self.byte() & 7).into())
    }

    fn code(&mut self) -> Code {
        Code(u64::from(self.byte()) | 0x100)
    }
}

struct End {
    machine: Connection,
    t: MemoryTransport,
    answered: BTreeSet<StreamId>,
    failed: bool,
}

impl End {
    fn new(role: Role, side: Side) -> Self {
        let mut end = Self {
            machine: Connection::new(role, config()),
            t: MemoryTransport::new(side),
            answered: BTreeSet::new(),
            failed: false,
        };
        end.t.set_send_window(256);
        end.failed = end.machine.start(&mut end.t).is_err();
        end
    }

    /// One input, then a full drain.
    fn settle(&mut self, is_hostile: bool) {
        while let Some(event) = self.t.poll_event() {
            if self.failed {
                continue;
            }
            self.failed = self
                .machine
                .handle_stream_event(&mut self.t, event)
                .is_err();
            while let Some(event) = self.machine.poll() {
                if let Event::Request { id, .. } = event {
                    self.answered.remove(&id);
                }
            }
        }
        while self.machine.poll().is_some() {}
        assert!(is_hostile || !self.failed, "a machine refuses its own kind");
        let streams = self.machine.request_count();
        let held_max = streams * (config().pending_write_bytes_max + 2 * 16 * 1024);
        assert!(self.machine.buffered_bytes() <= held_max, "holds too much");
    }

    fn respond(&mut self, id: StreamId, status: u8, fin: bool) {
        let codes = [200, 103, 404, 431, 204];
        let status = codes
            .get(usize::from(status) % codes.len())
            .copied()
            .unwrap_or(200);
        let Ok(status) = ::http::StatusCode::from_u16(status) else {
            return;
        };
        let head = ResponseHead::new(status);
        let fin = fin && !head.is_interim();
        if self.machine.respond(&mut self.t, id, &head, fin).is_ok() && !head.is_interim() {
            self.answered.insert(id);
        }
    }
}

struct World {
    client: End,
    server: End,
    is_hostile: bool,
}

impl World {
    fn new() -> Self {
        Self {
            client: End::new(Role::Client, Side::Client),
            server: End::new(Role::Server, Side::Server),
            is_hostile: false,
        }
    }

    fn end(&mut self, selector: u8) -> &mut End {
        if selector & 1 == 0 {
            &mut self.client
        } else {
            &mut self.server
        }
    }

    fn operate(&mut self, input: &mut Input<'_>) {
        let opcode = input.byte();
        let selector = opcode >> 4;
        match opcode & 0x0f {
            0 => self.request(input.byte()),
            1 => {
                let (id, status) = (input.request(), input.byte());
                if !self.server.failed {
                    self.server.respond(id, status >> 1, status & 1 == 1);
                }
            }
            2 => self.send(selector, input),
            3 => self.recv(selector, input),
            4 => {
                let id = input.request();
                let end = self.end(selector);
                end.machine.finish(&mut end.t, id);
            }
            5 => {
                let (id, code) = (input.request(), input.code());
                let end = self.end(selector);
                end.machine.reset(&mut end.t, id, code);
            }
            6 => {
                let goaway = if selector & 2 == 0 {
                    GoAway::Soft
                } else {
                    GoAway::Final
                };
                let end = self.end(selector);
                end.failed |= end.machine.goaway(&mut end.t, goaway).is_err();
            }
            7 | 8 => {
                let cut = usize::from(input.byte()) + 1;
                if opcode & 0x0f == 7 {
                    carry(&mut self.client.t, &mut self.server.t, cut);
                } else {
                    carry(&mut self.server.t, &mut self.client.t, cut);
                }
            }
            9 => {
                let window = usize::from(input.byte());
                self.end(selector).t.set_send_window(window);
            }
            10 => {
                self.is_hostile = true;
                let payload = input.bytes();
                let end = self.end(selector);
                if !end.failed {
                    end.failed = end.machine.route_datagram(&mut end.t, payload).is_err();
                }
            }
            11 => {
                let size = (selector & 2 == 0).then_some(1200);
                let end = self.end(selector);
                end.t.set_datagram_size_max(size);
                end.machine.datagram_mode(&mut end.t);
            }
            _ => self.be_hostile(opcode, input),
        }
    }

    fn request(&mut self, kind: u8) {
        let head = match kind & 3 {
            0 | 1 => RequestHead::extended_connect(
                "connect-udp",
                "https",
                "relay.example",
                "/masque/a/1/",
            ),
            2 => RequestHead::classic_connect("target.example:443"),
            _ => RequestHead {
                method: ::http::Method::GET,
                protocol: None,
                scheme: Some("https".into()),
                authority: Some("relay.example".into()),
                // From time to time one that is too large.
                path: Some("/".repeat(usize::from(kind) * 8 + 1).into()),
                headers: ::http::HeaderMap::new(),
            },
        };
        let end = &mut self.client;
        if !end.failed {
            // A refused request leaves nothing behind; whatever it said is fine.
            end.machine.request(&mut end.t, &head).ok();
        }
    }

    fn send(&mut self, selector: u8, input: &mut Input<'_>) {
        let (id, len) = (input.request(), usize::from(input.byte()) * 4);
        let end = self.end(selector);
        if selector & 1 == 0 || end.answered.contains(&id) {
            end.machine.send_data(&mut end.t, id, &vec![0x55; len]);
        }
    }

    fn recv(&mut self, selector: u8, input: &mut Input<'_>) {
        let (id, bytes_max) = (input.request(), usize::from(input.byte()));
        let end = self.end(selector);
        if end.failed {
            return;
        }
        match end.machine.recv_data(&mut end.t, id, bytes_max) {
            Ok(RecvData::Data(data)) => assert!((1..=bytes_max).contains(&data.len())),
            Ok(RecvData::Blocked | RecvData::Finished | RecvData::Reset(_) | RecvData::Gone) => {}
            Err(_) => end.failed = true,
        }
    }

    /// Puts something on a stream that its owner never sent.
    fn be_hostile(&mut self, opcode: u8, input: &mut Input<'_>) {
        self.is_hostile = true;
        let raw = input.byte();
        let initiator = if raw & 1 == 0 {
            Side::Client
        } else {
            Side::Server
        };
        let dir = if raw & 2 == 0 { Dir::Bi } else { Dir::Uni };
        let id = StreamId::new(initiator, dir, u64::from(raw >> 2) & 15);
        let end = self.end(opcode >> 4);
        match opcode & 0x0f {
            12 => end.t.inject(id, input.bytes()),
            13 => end.t.inject_fin(id),
            14 => end.t.inject_reset(id, input.code()),
            _ => end.t.inject_stop(id, input.code()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn operations_never_panic(data in prop::collection::vec(any::<u8>(), 0..600)) {
            h3_ops(&data);
        }

        /// Without hostile operations, which are the upper ones.
        #[test]
        fn well_behaved_ends_never_fail(
            operations in prop::collection::vec((0u8..10, 0u8..4, any::<u8>(), any::<u8>()), 0..300),
        ) {
            let data: Vec<u8> = operations
                .iter()
                .flat_map(|(opcode, selector, a, b)| match opcode {
                    // These take one octet, or none.
                    0 | 4 | 7 | 8 | 9 => vec![opcode | selector << 4, *a],
                    6 => vec![opcode | selector << 4],
                    _ => vec![opcode | selector << 4, *a, *b],
                })
                .collect();
            h3_ops(&data);
        }
    }
}
