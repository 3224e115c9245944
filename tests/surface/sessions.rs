//! A session that tells what it hears, and does what it is told.

use std::any::Any;
use std::sync::mpsc::{Receiver, Sender, channel};

use bauta::{
    Accept, Actions, AddressRange, AssignedAddress, Carrier, CloseReason, DnsConfig, IpEvent,
    Listener, Protocol, Request, SendError, Session, TunnelHandle,
};
use bytes::Bytes;
use ipnet::{IpNet, Ipv6Net};

use crate::world::{PATIENCE, Server, any_port};

/// What a session was told.
#[derive(Debug, PartialEq)]
pub(crate) enum Told {
    Open(Protocol),
    Packet(u64, Bytes),
    Data(Bytes),
    Eof,
    Capsule(u64, Bytes),
    Ip(IpEvent),
    /// The ids of requests.
    Requested(Result<Vec<u64>, SendError>),
    Message(&'static str),
    /// What an action said that a message asked for.
    Did(Result<(), SendError>),
    Close(&'static str),
}

/// What a message asks a session to do.
pub(crate) enum Order {
    Say(&'static str),
    Send(Bytes),
    SendOn(u64, Bytes),
    SendData(Bytes),
    Finish(Bytes),
    Capsule(u64, Bytes),
    Request(Vec<IpNet>),
    Assign(Vec<AssignedAddress>),
    Advertise(Vec<AddressRange>),
    Dns(Vec<DnsConfig>),
    Pref64(Vec<Ipv6Net>),
    Close,
    CloseWith(u64),
    Panic,
}

/// Tells a test what it hears. It answers nothing by itself.
pub(crate) struct Recorder {
    told: Sender<Told>,
    handles: Sender<TunnelHandle>,
}

impl Recorder {
    fn tell(&self, told: Told) {
        // Tests that are over listen no more.
        drop(self.told.send(told));
    }
}

impl Session for Recorder {
    fn on_open(&mut self, actions: &mut Actions<'_>) {
        drop(self.handles.send(actions.handle()));
        self.tell(Told::Open(actions.protocol()));
    }

    fn on_packet(&mut self, _: &mut Actions<'_>, context: u64, payload: Bytes) {
        self.tell(Told::Packet(context, payload));
    }

    fn on_data(&mut self, _: &mut Actions<'_>, data: Bytes) {
        self.tell(Told::Data(data));
    }

    fn on_eof(&mut self, _: &mut Actions<'_>) {
        self.tell(Told::Eof);
    }

    fn on_capsule(&mut self, _: &mut Actions<'_>, kind: u64, value: Bytes) {
        self.tell(Told::Capsule(kind, value));
    }

    fn on_ip_event(&mut self, _: &mut Actions<'_>, event: IpEvent) {
        // When QUIC knows the path is not for these tests to say.
        if !matches!(event, IpEvent::Mtu(_)) {
            self.tell(Told::Ip(event));
        }
    }

    fn on_message(&mut self, actions: &mut Actions<'_>, message: Box<dyn Any + Send>) {
        let done = match *message.downcast::<Order>().unwrap() {
            Order::Say(text) => return self.tell(Told::Message(text)),
            Order::Send(payload) => actions.send(payload),
            Order::SendOn(context, payload) => actions.send_on(context, payload),
            Order::SendData(data) => actions.send_data(data),
            Order::Finish(data) => actions.finish(data),
            Order::Capsule(kind, value) => actions.send_capsule(kind, &value),
            Order::Request(wishes) => {
                let ids = actions.request_addresses(&wishes);
                return self.tell(Told::Requested(ids));
            }
            Order::Assign(list) => actions.assign_addresses(list),
            Order::Advertise(list) => actions.advertise_routes(list),
            Order::Dns(list) => actions.assign_dns(list),
            Order::Pref64(list) => actions.assign_pref64(list),
            Order::Close => {
                actions.close();
                Ok(())
            }
            Order::CloseWith(code) => return actions.close_with(code),
            Order::Panic => panic!("as it should"),
        };
        self.tell(Told::Did(done));
    }

    fn on_close(&mut self, reason: CloseReason) {
        self.tell(Told::Close(match reason {
            CloseReason::Local => "local",
            CloseReason::Finished => "finished",
            CloseReason::Aborted(_) => "aborted",
            _ => "other",
        }));
    }
}

/// A server whose tunnels all end in a [`Recorder`].
pub(crate) struct Stage {
    pub(crate) server: Server,
    told: Receiver<Told>,
    handles: Receiver<TunnelHandle>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let (tell, told) = channel();
        let (give, handles) = channel();
        let handler = move |_: &Request| {
            Ok(Accept::session(Recorder {
                told: tell.clone(),
                handles: give.clone(),
            }))
        };
        Self {
            server: Server::start(Listener::all(any_port()).handler(handler)),
            told,
            handles,
        }
    }

    /// What the sessions were told next.
    #[track_caller]
    pub(crate) fn told(&self) -> Told {
        self.told
            .recv_timeout(PATIENCE)
            .expect("a callback in time")
    }

    /// All bytes of [`Told::Data`] that come next, as many as `len`.
    #[track_caller]
    pub(crate) fn told_bytes(&self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            match self.told() {
                Told::Data(data) => bytes.extend_from_slice(&data),
                other => panic!("{other:?} after {} of {len} bytes", bytes.len()),
            }
        }
        bytes
    }

    /// The handle of the session that opened next.
    #[track_caller]
    pub(crate) fn opened(&self, protocol: Protocol) -> TunnelHandle {
        assert_eq!(self.told(), Told::Open(protocol));
        self.handles
            .recv_timeout(PATIENCE)
            .expect("a handle in time")
    }

    pub(crate) fn udp(&self, carrier: Carrier) -> (bauta::UdpTunnel, TunnelHandle) {
        let tunnel = self.server.client(carrier).udp_blocking("dns.example:53");
        (tunnel.unwrap(), self.opened(Protocol::Udp))
    }

    pub(crate) fn ip(&self, carrier: Carrier) -> (bauta::IpTunnel, TunnelHandle) {
        let tunnel = self.server.client(carrier).ip_blocking("*");
        (tunnel.unwrap(), self.opened(Protocol::Ip))
    }

    pub(crate) fn tcp(&self, carrier: Carrier) -> (bauta::TcpTunnel, TunnelHandle) {
        let tunnel = self.server.client(carrier).tcp_blocking("web.example:80");
        (tunnel.unwrap(), self.opened(Protocol::Tcp))
    }
}
