//! What beginnings cost: new connections with a tunnel each, and new tunnels on a connection that is open.

use std::io::{self, Write};
use std::time::Duration;

use bauta::client::Hop;
use bauta::net::{clock, raise_file_limit};
use bauta::transport::tls::Trust;
use bauta::wire::carrier::Carrier;
use bauta::wire::template::RelayTemplates;
use bauta::worker::build::{RouteOptions, hops};
use serde::Serialize;

use crate::child::RelayChild;
use crate::opener::Opening;
use crate::place::{Places, cores};
use crate::process::{Process, cpu_time};

/// How long all of one kind may take.
const WITHIN: Duration = Duration::from_secs(120);

/// One kind of beginning.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Rate {
    count: u32,
    per_second: f64,
    /// CPU time of the relay process.
    pub(crate) cpu_us_each: f64,
    /// Share of a core that the relay used: below 0.9 the client was what took the time.
    relay_cpu_share: f64,
}

/// The result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Setup {
    carrier: &'static str,
    pub(crate) connections_with_one_tunnel: Rate,
    /// `None` on h1, where a connection carries one tunnel.
    pub(crate) tunnels_on_an_open_connection: Option<Rate>,
}

impl Setup {
    pub(crate) fn show(&self, out: &mut impl Write) -> io::Result<()> {
        let kinds = [
            (
                "new connection with a tunnel  ",
                Some(self.connections_with_one_tunnel),
            ),
            (
                "tunnel on an open connection  ",
                self.tunnels_on_an_open_connection,
            ),
        ];
        for (what, rate) in kinds {
            let Some(rate) = rate else {
                continue;
            };
            writeln!(
                out,
                "{}  {what}  {:>8.1} us of the relay's CPU each   {:>7.0} per second ({} in all, relay at {:.0} % of \
                 a core)",
                self.carrier,
                rate.cpu_us_each,
                rate.per_second,
                rate.count,
                rate.relay_cpu_share * 100.0
            )?;
        }
        Ok(())
    }
}

/// A relay of ours, how to reach it, and the core that is left for the client.
///
/// # Errors
/// What keeps it from starting.
pub(crate) fn relay(
    carrier: Carrier,
    set: &[String],
) -> io::Result<(Process, Vec<Hop>, Option<usize>)> {
    let places = Places::new(cores().len(), 1, 1, 1);
    let process = Process::relay(&RelayChild {
        role: "relay".to_owned(),
        via: None,
        ca: None,
        carrier,
        core: places.relays[0],
        workers: 1.try_into().expect("not zero"),
        set: set.to_vec(),
    })?;
    let url = format!("https://{}", process.hello.address);
    let template = RelayTemplates::from_relay_url(&url).map_err(io::Error::other)?;
    let trust = Trust::Pem(process.hello.ca.clone());
    let hops = hops(RouteOptions {
        carriers: vec![carrier],
        ..RouteOptions::new(vec![template], trust)
    })
    .map_err(io::Error::other)?;
    Ok((process, hops, places.engines))
}

/// Opens connections and tunnels and looks at what the relay spent.
///
/// # Errors
/// What keeps it from running, or a tunnel from opening.
pub(crate) fn measure(
    carrier: Carrier,
    (connections, tunnels): (u32, u32),
    concurrency: u32,
    set: &[String],
) -> io::Result<Setup> {
    raise_file_limit()?;
    let timed = |process: &Process, opening: &Opening, count, close| -> io::Result<Rate> {
        let (began, before) = (clock::now(), cpu_time(process.pid())?);
        opening.open(count, close, WITHIN)?;
        let took = began.elapsed().as_secs_f64();
        let cpu = (cpu_time(process.pid())? - before).as_secs_f64();
        Ok(Rate {
            count,
            per_second: f64::from(count) / took,
            cpu_us_each: cpu * 1e6 / f64::from(count),
            relay_cpu_share: cpu / took,
        })
    };
    let (process, hops, core) = relay(carrier, set)?;
    let opening = Opening::start(&hops, connections, concurrency, core)?;
    let connections_with_one_tunnel = timed(&process, &opening, connections, false)?;
    drop((opening, process));

    let tunnels_on_an_open_connection = match carrier {
        Carrier::H3 | Carrier::H2 => {
            let (process, hops, core) = relay(carrier, set)?;
            let opening = Opening::start(&hops, 1, concurrency, core)?;
            opening.open(1, false, WITHIN)?;
            Some(timed(&process, &opening, tunnels, true)?)
        }
        Carrier::H1 => None,
    };
    Ok(Setup {
        carrier: carrier.as_str(),
        connections_with_one_tunnel,
        tunnels_on_an_open_connection,
    })
}
