//! Both roles against each other, with every split of the streams between them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::http::h3::event::SendData;
use crate::http::h3::memory::carry;

/// What one end of the tunnels saw and sends.
#[derive(Default)]
struct End {
    heads: Vec<StreamId>,
    received: BTreeMap<StreamId, Vec<u8>>,
    finished: Vec<StreamId>,
    to_send: BTreeMap<StreamId, Vec<Vec<u8>>>,
}

impl End {
    fn step(&mut self, script: &mut Script, room: usize) {
        for event in script.run().unwrap() {
            match &event {
                Event::Request { id, .. } => {
                    self.heads.push(*id);
                    script.respond(id.index(), 200, false);
                }
                Event::Response { id, .. } => self.heads.push(*id),
                Event::Settings(_) | Event::Readable { .. } | Event::Writable { .. } => {}
                Event::Reset { .. }
                | Event::Stopped { .. }
                | Event::Aborted { .. }
                | Event::StreamsAvailable
                | Event::GoAway { .. } => panic!("{event:?}"),
            }
        }
        for id in self.heads.clone() {
            self.send(script, id);
            match script.machine.recv_data(&mut script.t, id, room).unwrap() {
                RecvData::Data(data) => self
                    .received
                    .entry(id)
                    .or_default()
                    .extend_from_slice(&data),
                RecvData::Finished => self.finished.push(id),
                RecvData::Blocked | RecvData::Gone => {}
                RecvData::Reset(code) => panic!("{code}"),
            }
        }
    }

    fn send(&mut self, script: &mut Script, id: StreamId) {
        let Some(queue) = self.to_send.get_mut(&id) else {
            return;
        };
        while let Some(data) = queue.first() {
            match script.machine.send_data(&mut script.t, id, data) {
                SendData::Written => drop(queue.remove(0)),
                SendData::Blocked => return,
                SendData::Gone => panic!("gone"),
            }
        }
        self.to_send.remove(&id);
        script.machine.finish(&mut script.t, id);
    }
}

fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the cuts, the windows and the room, both ends receive exactly what the other one sent.
    #[test]
    fn tunnels_carry_bytes_unchanged(
        up in prop::collection::vec(payloads(), 1..4),
        down in payloads(),
        cuts in prop::collection::vec(1usize..40, 1..20),
        window in 1usize..200,
        room in 1usize..100,
    ) {
        let (mut client, mut server) = (Script::client(), Script::server());
        for script in [&mut client, &mut server] {
            script.t.set_send_window(window);
        }
        let (mut near, mut far) = (End::default(), End::default());
        let mut sent_up = BTreeMap::new();
        let mut cuts = cuts.iter().copied().cycle();
        for _ in 0..20_000 {
            if client.machine.peer_settings().is_some() && sent_up.is_empty() {
                for data in &up {
                    let id = client.machine.request(&mut client.t, &connect_udp()).unwrap();
                    near.to_send.insert(id, data.clone());
                    far.to_send.insert(id, down.clone());
                    sent_up.insert(id, data.concat());
                }
            }
            near.step(&mut client, room);
            far.step(&mut server, room);
            let cut = cuts.next().unwrap();
            carry(&mut client.t, &mut server.t, cut);
            carry(&mut server.t, &mut client.t, cut);
            if far.finished.len() == up.len() && near.finished.len() == up.len() {
                break;
            }
        }
        prop_assert_eq!(near.finished.len(), up.len());
        for (id, data) in sent_up {
            prop_assert_eq!(far.received.remove(&id).unwrap_or_default(), data);
            prop_assert_eq!(near.received.remove(&id).unwrap_or_default(), down.concat());
        }
        near.step(&mut client, room);
        far.step(&mut server, room);
        prop_assert!(client.machine.is_idle() && server.machine.is_idle(), "streams are forgotten");
    }

    /// Garbage on any stream gives an error or nothing, and keeps nothing beyond the limits.
    #[test]
    fn garbage_never_panics(
        garbage in prop::collection::vec((0u64..12, prop::collection::vec(any::<u8>(), 0..200)), 0..20),
    ) {
        for mut script in [Script::server(), Script::requesting_client()] {
            for (id, bytes) in &garbage {
                let initiator = if id & 1 == 0 { Side::Client } else { Side::Server };
                let dir = if id & 2 == 0 { Dir::Bi } else { Dir::Uni };
                let id = StreamId::new(initiator, dir, id >> 2);
                script.t.inject(id, bytes);
                if script.run().is_err() || script.machine.recv_data(&mut script.t, request(0), 100).is_err() {
                    break;
                }
            }
        }
    }
}
