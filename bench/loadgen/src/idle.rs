//! What tunnels cost that carry nothing: resident memory of a relay process before, with one tunnel per connection, and
//! with many.

use std::io::{self, Write};
use std::time::Duration;

use bauta::net::raise_file_limit;
use bauta::wire::carrier::Carrier;
use serde::Serialize;

use crate::opener::Opening;
use crate::process::rss_bytes;
use crate::setup::relay;

/// Tunnels that are being opened at the same time.
const OPENING_MAX: u32 = 64;
/// How long all tunnels together may take to open.
const OPEN_WITHIN: Duration = Duration::from_secs(120);

/// The result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Idle {
    carrier: String,
    connections: u32,
    tunnels: u32,
    rss_bytes_start: u64,
    rss_bytes_one_tunnel_each: u64,
    rss_bytes_all_tunnels: u64,
    pub(crate) bytes_per_connection_with_one_tunnel: u64,
    pub(crate) bytes_per_further_tunnel: u64,
}

impl Idle {
    pub(crate) fn show(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "{}, {} connections, {} idle tunnels, resident memory of the relay process\n\
             \x20 per connection with one tunnel  {} bytes\n  per further tunnel              {} bytes",
            self.carrier,
            self.connections,
            self.tunnels,
            self.bytes_per_connection_with_one_tunnel,
            self.bytes_per_further_tunnel
        )
    }
}

/// Descriptors of the relay for each tunnel: towards the target, and on h1 towards the client.
fn files_per_tunnel(carrier: Carrier) -> u64 {
    match carrier {
        Carrier::H3 | Carrier::H2 => 1,
        Carrier::H1 => 2,
    }
}

/// Opens `connections` times `tunnels` tunnels to a relay and reads the memory of its process.
///
/// # Errors
/// What keeps it from running, or a tunnel from opening.
pub(crate) fn measure(
    carrier: Carrier,
    connections: u32,
    tunnels: u32,
    set: &[String],
) -> io::Result<Idle> {
    let files = raise_file_limit()?;
    let wanted = u64::from(connections) * u64::from(tunnels) * files_per_tunnel(carrier) + 256;
    if files < wanted {
        return Err(io::Error::other(format!(
            "the relay needs {wanted} file descriptors, and the limit is {files}: raise it with `ulimit -n {wanted}`"
        )));
    }
    let (process, hops, core) = relay(carrier, set)?;
    let opening = Opening::start(&hops, connections, OPENING_MAX, core)?;
    let open = |count| -> io::Result<u64> {
        opening.open(count, false, OPEN_WITHIN)?;
        rss_bytes(process.pid())
    };
    let start = rss_bytes(process.pid())?;
    let one = open(connections)?;
    let further = connections * (tunnels - 1);
    let all = open(further)?;
    let per = |bytes: u64, count: u32| bytes / u64::from(count.max(1));
    Ok(Idle {
        carrier: carrier.to_string(),
        connections,
        tunnels: connections * tunnels,
        rss_bytes_start: start,
        rss_bytes_one_tunnel_each: one,
        rss_bytes_all_tunnels: all,
        bytes_per_connection_with_one_tunnel: per(one.saturating_sub(start), connections),
        bytes_per_further_tunnel: per(all.saturating_sub(one), further),
    })
}
