//! Which carrier a tunnel goes over: they race, the first usable 2xx wins (RFC 8305 in spirit).
//!
//! ```text
//!   h3 ─ dial ─ request ─────────────────────── … nothing comes back
//!   h2 ·········│ 250 ms │─ dial ─ request ─ 2xx   wins: the h3 request is cancelled
//!   h1 ·················│ + 500 ms │               never starts
//! ```
//!
//! A head start lasts longer while the path shows life: a relay whose packets arrive is busy with the request, and
//! asking again elsewhere would make it connect twice. A QUIC path is asked for a sign of life each time, since some
//! networks stop it after its first packets. A final answer decides the race, whatever it says: another
//! carrier leads to the same relay. Only answers about the carrier itself do not.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ::http::StatusCode;

use super::leg::{Leg, State, Tunnel};
use super::machine::{Machine, Outside};
use crate::client::{Failure, HopId, Request, RouteId, TcpForm, Ticket, TunnelKind};
use crate::config::HeadStarts;
use crate::error::Refusal;
use crate::http::h3::code::Code;
use crate::http::request::ResponseHead;
use crate::server::{Protocol, check_accepted};
use crate::transport::carriers::RequestStream;
use crate::tunnel::{Framing, TunnelId};
use crate::wire::carrier::Carrier;
use crate::wire::field::capsule_protocol;
use crate::wire::target::Target;

/// How long a path that was alive has at least to show that it still is.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(100);

/// The attempts to open one tunnel at the next hop.
#[derive(Debug)]
pub(super) struct Race {
    pub(super) request: Request,
    route: RouteId,
    network: Option<IpAddr>,
    /// Carriers that have not started.
    choices: VecDeque<(Carrier, HopId)>,
    attempts: Vec<Attempt>,
    /// Why attempts failed, in that order.
    failures: Vec<(Carrier, Failure)>,
    /// When the next carrier may start.
    next: Option<Instant>,
    started: u32,
    /// The relay cannot be asked for this, on no carrier.
    unaskable: bool,
    head_starts: HeadStarts,
}

#[derive(Debug)]
struct Attempt {
    carrier: Carrier,
    ticket: Ticket,
    /// What is asked, with the fields that the relay wanted.
    request: Request,
    /// Where the request went, and since when the path has to show that it is alive.
    asked: Option<(RequestStream, Instant)>,
    retried: bool,
}

impl Race {
    /// When the machine has to look at the race.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.next.filter(|_| !self.choices.is_empty())
    }

    /// Whether a request went out.
    fn has_asked(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.asked.is_some())
    }

    pub(super) fn is_asked(&self, stream: RequestStream) -> bool {
        self.attempt_on(stream).is_some()
    }

    fn attempt_on(&self, stream: RequestStream) -> Option<usize> {
        let asked = |attempt: &Attempt| attempt.asked.is_some_and(|(asked, _)| asked == stream);
        self.attempts.iter().position(asked)
    }

    /// Why attempts failed, in that order, those that time ran out for last.
    pub(super) fn failures(self) -> Vec<(Carrier, Failure)> {
        self.failures
    }

    /// Time is up: what is told, and what is noted of each attempt that is still under way.
    pub(super) fn time_out(&mut self, relay: &Option<Target>) -> Failure {
        let silent = |attempt: &Attempt| match attempt.asked {
            Some(_) => Refusal::NextHopTimeout,
            None => Refusal::ConnectTimeout,
        };
        let at_relay = |refusal: Refusal| Failure {
            relay: relay.clone(),
            ..refusal.into()
        };
        if self.unaskable {
            return at_relay(Refusal::Misconfigured);
        }
        let running = self.attempts.iter();
        self.failures
            .extend(running.map(|attempt| (attempt.carrier, at_relay(silent(attempt)))));
        at_relay(match self.has_asked() {
            true => Refusal::NextHopTimeout,
            false => Refusal::ConnectTimeout,
        })
    }
}

impl Machine {
    /// Takes back one [`Machine::add_route`]. See [`Pool::remove_route`](crate::client::Pool::remove_route).
    pub fn remove_route(&mut self, now: Instant, route: RouteId) {
        self.pool.remove_route(now, route, &mut self.carriers);
    }

    /// How many routes are known, those to relays on the way included.
    pub fn route_count(&self) -> usize {
        self.pool.route_count()
    }

    /// The state of a tunnel that is going to ask the next hop.
    pub(super) fn race(
        &mut self,
        now: Instant,
        route: RouteId,
        request: Request,
        out: &mut impl Outside,
    ) -> State {
        let network = self.network(route, out);
        let mut choices = self.pool.choices(now, route, network);
        let known = choices.len();
        choices.retain(|(_, hop)| self.pool.hop(*hop).can_ask(&request));
        State::Racing(Box::new(Race {
            request,
            route,
            network,
            unaskable: choices.is_empty() && known > 0,
            choices: choices.into(),
            attempts: Vec::new(),
            failures: Vec::new(),
            next: None,
            started: 0,
            head_starts: self
                .pool
                .head_starts(route)
                .unwrap_or(self.limits.head_starts),
        }))
    }

    /// Our address towards the first relay, which tells networks apart. Nothing is asked where there is no choice.
    fn network(&mut self, route: RouteId, out: &mut impl Outside) -> Option<IpAddr> {
        let address = self.pool.first_address(route)?;
        out.local_ip_towards(address)
    }

    fn race_mut(&mut self, id: TunnelId) -> Option<&mut Race> {
        match self.tunnels.get_mut(id)?.state {
            State::Racing(ref mut race) => Some(race),
            State::Verifying { .. }
            | State::Deciding(_)
            | State::Resolving { .. }
            | State::Connecting(_)
            | State::Open => None,
        }
    }

    /// Starts the next carrier, if there is one.
    pub(super) fn start_attempt(&mut self, now: Instant, id: TunnelId) {
        let Some(race) = self.race_mut(id) else {
            return;
        };
        let head_starts = race.head_starts;
        let Some((carrier, hop)) = race.choices.pop_front() else {
            // The route is gone: there is nothing to wait for.
            if race.started == 0 {
                self.set_open_timeout(now, id, Some(Duration::ZERO));
            }
            return;
        };
        race.started += 1;
        race.next = Some(match race.started {
            1 => now + head_starts.first,
            _ => now + head_starts.second,
        });
        let request = race.request.clone();
        let ticket = self
            .pool
            .open(now, hop, id, request.clone(), &mut self.carriers);
        if let Some(race) = self.race_mut(id) {
            race.attempts.push(Attempt {
                carrier,
                ticket,
                request,
                asked: None,
                retried: false,
            });
        }
        self.arm_race(id);
    }

    fn arm_race(&mut self, id: TunnelId) {
        let Some(tunnel) = self.tunnels.get(id) else {
            return;
        };
        let State::Racing(race) = &tunnel.state else {
            return;
        };
        let due = race.next_timeout().unwrap_or(tunnel.open_until);
        self.arm(id, due.min(tunnel.open_until));
    }

    /// The head start of a carrier is over.
    pub(super) fn handle_head_start_over(
        &mut self,
        now: Instant,
        id: TunnelId,
        out: &mut impl Outside,
    ) {
        let Some(Tunnel {
            state: State::Racing(race),
            ..
        }) = self.tunnels.get(id)
        else {
            return;
        };
        let delay = race.head_starts.first.max(LOOK_AGAIN_MIN);
        let heard = |(stream, since): &(RequestStream, Instant)| {
            self.carriers.heard_since(stream.connection(), *since)
        };
        let asked = race.attempts.iter().filter_map(|attempt| attempt.asked);
        let alive: Vec<_> = asked.filter(heard).map(|(stream, _)| stream).collect();
        if !alive.is_empty() {
            // A path that was alive may have died since, and a relay that is busy says nothing by itself.
            let probed: Vec<_> = alive
                .into_iter()
                .filter(|stream| self.carriers.ping(stream.connection()))
                .collect();
            if let Some(race) = self.race_mut(id) {
                race.next = Some(now + delay);
                for attempt in &mut race.attempts {
                    if let Some((stream, since)) = &mut attempt.asked
                        && probed.contains(stream)
                    {
                        *since = now;
                    }
                }
            }
            return self.arm_race(id);
        }
        self.start_attempt(now, id);
        self.handle_pool_events(now, out);
    }

    /// The pool found a stream; the request is on its way.
    pub(super) fn handle_pooled(
        &mut self,
        now: Instant,
        id: TunnelId,
        ticket: Ticket,
        stream: RequestStream,
    ) {
        let attempt = self.race_mut(id).and_then(|race| {
            race.attempts
                .iter_mut()
                .find(|attempt| attempt.ticket == ticket)
        });
        match attempt {
            Some(attempt) => {
                attempt.asked = Some((stream, now));
                self.carriers.bind(stream, id.to_bits());
            }
            // Nobody waits any more.
            None => {
                self.carriers.reset(stream, Code::H3_REQUEST_CANCELLED);
                self.pool
                    .release(now, stream.connection(), &mut self.carriers);
            }
        }
    }

    /// The pool has no stream for an attempt.
    pub(super) fn handle_pool_failed(
        &mut self,
        now: Instant,
        id: TunnelId,
        ticket: Ticket,
        failure: Failure,
        out: &mut impl Outside,
    ) {
        let Some(race) = self.race_mut(id) else {
            return;
        };
        let mut attempts = race.attempts.iter();
        let Some(index) = attempts.position(|attempt| attempt.ticket == ticket) else {
            return;
        };
        match failure.is_final() {
            true => self.race_lost(now, id, index, failure, out),
            false => self.attempt_failed(now, id, index, failure, out),
        }
    }

    /// The stream of an attempt failed, with a code if the peer gave one.
    pub(super) fn attempt_lost(
        &mut self,
        now: Instant,
        id: TunnelId,
        stream: RequestStream,
        code: Option<Code>,
        out: &mut impl Outside,
    ) {
        let Some(race) = self.race_mut(id) else {
            return;
        };
        let Some(index) = race.attempt_on(stream) else {
            return;
        };
        let attempt = &mut race.attempts[index];
        let request = attempt.request.clone();
        // Not processed at all: another connection may do it (RFC 9114 §4.1.1, RFC 9113 §8.7).
        if code == Some(Code::H3_REQUEST_REJECTED) && !attempt.retried {
            attempt.retried = true;
            attempt.asked = None;
            let hop = attempt.ticket.hop;
            self.carriers.unbind(stream);
            self.pool
                .release(now, stream.connection(), &mut self.carriers);
            let ticket = self.pool.open(now, hop, id, request, &mut self.carriers);
            if let Some(race) = self.race_mut(id) {
                race.attempts[index].ticket = ticket;
            }
            return;
        }
        let refusal = match code {
            Some(_) => Refusal::NextHopProtocol,
            None => Refusal::DestinationUnavailable,
        };
        let failure = self.failure_asked(id, index, refusal);
        self.attempt_failed(now, id, index, failure, out);
    }

    /// What became of an attempt that had asked its relay.
    fn failure_asked(&mut self, id: TunnelId, index: usize, refusal: Refusal) -> Failure {
        let Some(race) = self.race_mut(id) else {
            return refusal.into();
        };
        let (target, hop) = (
            race.request.destination.clone(),
            race.attempts[index].ticket.hop,
        );
        Failure {
            target: Some(target),
            ..Failure::at(self.pool.hop(hop).target(), refusal)
        }
    }

    /// A relay has decided, and other carriers lead to the same one.
    fn race_lost(
        &mut self,
        now: Instant,
        id: TunnelId,
        index: usize,
        failure: Failure,
        out: &mut impl Outside,
    ) {
        if let Some(race) = self.race_mut(id) {
            let decided = race.attempts[index].carrier;
            race.failures.push((decided, failure.clone()));
        }
        self.refuse_because(now, id, failure, out);
    }

    fn attempt_failed(
        &mut self,
        now: Instant,
        id: TunnelId,
        index: usize,
        failure: Failure,
        out: &mut impl Outside,
    ) {
        let Some(race) = self.race_mut(id) else {
            return;
        };
        let attempt = race.attempts.swap_remove(index);
        race.failures.push((attempt.carrier, failure.clone()));
        let running = !race.attempts.is_empty();
        let first = race.failures[0].1.clone();
        let more = !race.choices.is_empty();
        self.cancel_attempt(now, attempt);
        if more {
            self.start_attempt(now, id);
            self.handle_pool_events(now, out);
        } else if !running {
            let told = match failure.response {
                Some(_) => failure,
                None => first,
            };
            self.refuse_because(now, id, told, out);
        }
    }

    /// Takes back what an attempt has asked for, without a trace.
    fn cancel_attempt(&mut self, now: Instant, attempt: Attempt) {
        match attempt.asked {
            Some((stream, _)) => {
                self.carriers.unbind(stream);
                self.carriers.reset(stream, Code::H3_REQUEST_CANCELLED);
                self.pool
                    .release(now, stream.connection(), &mut self.carriers);
            }
            None => self.pool.cancel(attempt.ticket),
        }
    }

    /// Ends a race that nobody is interested in any more.
    pub(super) fn cancel_race(&mut self, now: Instant, race: &mut Race) {
        for attempt in std::mem::take(&mut race.attempts) {
            self.cancel_attempt(now, attempt);
        }
    }

    /// The next hop answered.
    pub(super) fn handle_response(
        &mut self,
        now: Instant,
        stream: RequestStream,
        head: Box<ResponseHead>,
        out: &mut impl Outside,
    ) {
        let Some(id) = self.carriers.owner(stream).map(TunnelId::from_bits) else {
            return;
        };
        let Some(race) = self.race_mut(id) else {
            return;
        };
        let Some(index) = race.attempt_on(stream) else {
            return;
        };
        let (kind, hop) = (race.request.kind, race.attempts[index].ticket.hop);
        let hop = self.pool.hop(hop);
        let asked = match hop.form(kind) {
            None if kind == TunnelKind::Ip => Protocol::Ip,
            None => Protocol::Udp,
            Some(TcpForm::Classic | TcpForm::Raw) => Protocol::Tcp(Framing::Raw),
            Some(TcpForm::Capsules) => Protocol::Tcp(Framing::Capsules(hop.revision)),
        };
        let is_strict = hop.strict_capsule_protocol;
        if self.answer_challenge(now, id, index, &head) {
            return self.handle_pool_events(now, out);
        }
        match check_answer(&head, asked, is_strict) {
            Ok(protocol) => self.attempt_won(now, id, index, protocol, out),
            Err(refusal) => {
                let is_about_carrier = is_about_carrier(&head);
                let failure = Failure {
                    response: Some(head),
                    ..self.failure_asked(id, index, refusal)
                };
                match is_about_carrier {
                    true => self.attempt_failed(now, id, index, failure, out),
                    false => self.race_lost(now, id, index, failure, out),
                }
            }
        }
    }

    /// Opening took too long.
    pub(super) fn race_timed_out(&mut self, now: Instant, id: TunnelId, out: &mut impl Outside) {
        let Some(route) = self.race_mut(id).map(|race| race.route) else {
            return;
        };
        let relay = self.pool.relay(route);
        if let Some(race) = self.race_mut(id) {
            let failure = race.time_out(&relay);
            self.refuse_because(now, id, failure, out);
        }
    }

    /// Asks once more where the relay wants credentials in a field that the first request did not have; whether it
    /// did.
    fn answer_challenge(
        &mut self,
        now: Instant,
        id: TunnelId,
        index: usize,
        response: &ResponseHead,
    ) -> bool {
        let Some(State::Racing(race)) = self.tunnels.get(id).map(|tunnel| &tunnel.state) else {
            return false;
        };
        let attempt = &race.attempts[index];
        let (hop, mut request) = (attempt.ticket.hop, attempt.request.clone());
        if !self.pool.hop(hop).can_answer(&mut request, response) {
            return false;
        }
        let asked = attempt.asked;
        if let Some((stream, _)) = asked {
            self.carriers.unbind(stream);
            self.carriers.reset(stream, Code::H3_REQUEST_CANCELLED);
            self.pool
                .release(now, stream.connection(), &mut self.carriers);
        }
        let ticket = self
            .pool
            .open(now, hop, id, request.clone(), &mut self.carriers);
        if let Some(race) = self.race_mut(id) {
            // Carriers that have not started ask so from the beginning.
            race.request = request.clone();
            let attempt = &mut race.attempts[index];
            attempt.request = request;
            attempt.ticket = ticket;
            attempt.asked = None;
        }
        true
    }

    fn attempt_won(
        &mut self,
        now: Instant,
        id: TunnelId,
        index: usize,
        protocol: Protocol,
        out: &mut impl Outside,
    ) {
        let Some(race) = self.race_mut(id) else {
            return;
        };
        let winner = race.attempts.swap_remove(index);
        let losers = std::mem::take(&mut race.attempts);
        let (route, network) = (race.route, race.network);
        for loser in losers {
            // What swallows requests gets no more of them.
            if let Some((stream, _)) = loser.asked {
                self.pool.distrust(stream.connection());
            }
            self.cancel_attempt(now, loser);
        }
        let network = network.or_else(|| self.network(route, out));
        self.pool.remember(now, route, network, winner.carrier);
        if let Some((stream, _)) = winner.asked {
            if protocol == Protocol::Ip && !self.carries_ip(stream) {
                self.carriers.unbind(stream);
                self.carriers.reset(stream, Code::H3_REQUEST_CANCELLED);
                self.pool
                    .release(now, stream.connection(), &mut self.carriers);
                return self.refuse(now, id, Refusal::PathTooSmall, None, out);
            }
            self.opened(now, id, Leg::Stream(stream), protocol, out);
        }
    }
}

/// What a relay accepted, as far as this hop believes it.
fn check_answer(
    head: &ResponseHead,
    asked: Protocol,
    is_strict: bool,
) -> Result<Protocol, Refusal> {
    let accepted = check_accepted(head, asked)?;
    match is_strict && asked.has_capsules() && !capsule_protocol(&head.headers) {
        true => Err(Refusal::NextHopProtocol),
        false => Ok(accepted),
    }
}

/// Whether an answer says more about the HTTP version than about the request.
fn is_about_carrier(head: &ResponseHead) -> bool {
    const ABOUT_CARRIER: [StatusCode; 3] = [
        StatusCode::MISDIRECTED_REQUEST,
        StatusCode::NOT_IMPLEMENTED,
        StatusCode::HTTP_VERSION_NOT_SUPPORTED,
    ];
    ABOUT_CARRIER.contains(&head.status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codepoints::Revision;
    use crate::wire::field::{CAPSULE_PROTOCOL, CAPSULE_PROTOCOL_TRUE};

    // spec: 9298-3.5-a
    #[test]
    fn a_strict_client_wants_to_hear_of_capsules() {
        let bare = ResponseHead::new(StatusCode::OK);
        let mut said = bare.clone();
        said.headers.insert(CAPSULE_PROTOCOL, CAPSULE_PROTOCOL_TRUE);
        let raw = Protocol::Tcp(Framing::Raw);
        let capsules = Protocol::Tcp(Framing::Capsules(Revision::newest()));
        let missing = Err(Refusal::NextHopProtocol);
        for (head, asked, is_strict, expected) in [
            (&bare, Protocol::Udp, false, Ok(Protocol::Udp)),
            (&bare, Protocol::Udp, true, missing),
            (&said, Protocol::Udp, true, Ok(Protocol::Udp)),
            (&bare, capsules, false, Ok(raw)),
            (&bare, capsules, true, missing),
            (&said, capsules, true, Ok(capsules)),
            (&bare, raw, true, Ok(raw)),
        ] {
            assert_eq!(check_answer(head, asked, is_strict), expected);
        }
        let refused = ResponseHead::new(StatusCode::FORBIDDEN);
        let refusal = check_answer(&refused, Protocol::Udp, true);
        assert!(matches!(refusal, Err(Refusal::NextHopStatus { .. })));
    }
}
