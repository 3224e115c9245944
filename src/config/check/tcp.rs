//! HTTP/2 and HTTP/1.1: which carriers there are, and the bounds of their connections.

use std::time::Duration;

use super::{Checker, count, small};
use crate::config::checked::Tcp;
use crate::config::duration::Period;
use crate::config::limits::{self, Limit};
use crate::config::{HeadStarts, relay};
use crate::wire::carrier::Carrier;

impl Checker<'_> {
    /// The carriers of a list, in the order of preference; all if there is no list.
    pub(super) fn carriers(&mut self, at: &str, texts: Option<Vec<String>>) -> Vec<Carrier> {
        let Some(texts) = texts else {
            return Carrier::ALL.to_vec();
        };
        let mut named = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            match text.parse() {
                Ok(carrier) => named.push(carrier),
                Err(_) => {
                    let key = format!("{at}.carriers[{index}]");
                    let message = "must be \"h3\", \"h2\" or \"h1\"";
                    self.problems.value(key, super::quoted(text), message);
                }
            }
        }
        if texts.is_empty() {
            let message = "must name at least one of \"h3\", \"h2\" and \"h1\"";
            self.problems.key(format!("{at}.carriers"), message);
        }
        let all = Carrier::ALL.into_iter();
        all.filter(|carrier| named.contains(carrier)).collect()
    }

    /// Two durations, or the default.
    pub(super) fn head_starts(&mut self, periods: Option<Vec<Period>>) -> HeadStarts {
        let Some(periods) = periods else {
            return HeadStarts::default();
        };
        let [first, second] = periods[..] else {
            let message = format!("{} durations, must be 2", periods.len());
            self.problems.key("upstream.head_starts", message);
            return HeadStarts::default();
        };
        let range = Duration::ZERO..=HeadStarts::MAX;
        HeadStarts {
            first: self.duration("upstream.head_starts[0]", first, range.clone()),
            second: self.duration("upstream.head_starts[1]", second, range),
        }
    }

    pub(super) fn tcp(&mut self, file: relay::Tcp) -> Tcp {
        let tcp = Tcp {
            connections: count(self.limit(&limits::TCP_CONNECTIONS, file.connections)),
            connections_per_address: count(self.limit(
                &limits::TCP_CONNECTIONS_PER_ADDRESS,
                file.connections_per_address,
            )),
            handshake_timeout: self.wait(&limits::TCP_HANDSHAKE_TIMEOUT, file.handshake_timeout),
            head_timeout: self.wait(&limits::TCP_HEAD_TIMEOUT, file.head_timeout),
            idle_timeout: self.wait(&limits::TCP_IDLE_TIMEOUT, file.idle_timeout),
            write_timeout: self.wait(&limits::TCP_WRITE_TIMEOUT, file.write_timeout),
            stream_window: small(self.limit(&limits::TCP_STREAM_WINDOW, file.stream_window)),
            connection_window: small(
                self.limit(&limits::TCP_CONNECTION_WINDOW, file.connection_window),
            ),
            pending_bytes: count(self.limit(&limits::TCP_PENDING_BYTES, file.pending_bytes)),
            control_frames: small(self.limit(&limits::TCP_CONTROL_FRAMES, file.control_frames)),
            pending_resets: count(self.limit(&limits::TCP_PENDING_RESETS, file.pending_resets)),
        };
        let windows = [&limits::TCP_STREAM_WINDOW, &limits::TCP_CONNECTION_WINDOW];
        let mut problems = self.problems.list.iter();
        let both_given = !problems.any(|p| windows.iter().any(|limit| limit.key == p.key));
        if both_given && tcp.stream_window > tcp.connection_window {
            let message = format!(
                "must not be above tcp.connection_window ({})",
                tcp.connection_window
            );
            self.problems
                .value("tcp.stream_window", tcp.stream_window, message);
        }
        tcp
    }

    /// A limit that counts milliseconds, given as a duration.
    fn wait(&mut self, limit: &Limit, period: Period) -> Duration {
        let of = |milliseconds| Duration::from_millis(u64::from(small(milliseconds)));
        self.duration(limit.key, period, of(limit.min)..=of(limit.max))
    }
}
