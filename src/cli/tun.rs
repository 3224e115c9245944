//! Arguments of `bauta tun`.

use bauta::config::Offload;
use bauta::config::limits::TUN_MTU_DEFAULT;
use bauta::program::tun::Client;
use bauta::wire::ip::{Scope, ScopeTarget};
use bauta::worker::build::RouteOptions;
use clap::{Args, value_parser};
use ipnet::IpNet;

use super::via::ViaArgs;

/// Characters of an interface's name.
const NAME_CHARS_MAX: usize = 15;

/// `bauta tun`.
#[derive(Debug, Args)]
#[command(after_help = TUN_HELP)]
pub(crate) struct TunArgs {
    /// The relays.
    #[command(flatten)]
    pub(crate) relays: ViaArgs,

    /// Send only this through the tunnel; everything that the relay offers when left out
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    pub(crate) route: Vec<IpNet>,

    /// A network behind this machine that the other side may reach, if the relay lets us have it
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    pub(crate) advertise: Vec<IpNet>,

    /// Name of the interface; %d stands for a free number
    #[arg(long, value_name = "IF", default_value = "bauta%d", value_parser = interface)]
    pub(crate) name: String,

    /// Most bytes of a packet; the interface has less when the tunnel carries less
    #[arg(long, value_name = "N", default_value_t = TUN_MTU_DEFAULT, value_parser = value_parser!(u16).range(1280..))]
    pub(crate) mtu: u16,

    /// Leave the name servers of this machine alone
    #[arg(long)]
    pub(crate) no_dns: bool,

    /// Ask the relay for this part of the network only: an address, a prefix or a name
    #[arg(long, value_name = "SCOPE", default_value = "*")]
    pub(crate) target: ScopeTarget,

    /// Ask the relay for this protocol only, by its number (ICMP passes in any case)
    #[arg(long, value_name = "N")]
    pub(crate) ipproto: Option<u8>,

    /// Move each packet by itself between kernel and tunnel
    #[arg(long)]
    pub(crate) no_offload: bool,
}

pub(super) const TUN_HELP: &str = "\
Addresses, routes and name servers come from the relay. The way to the relay itself stays outside the tunnel, which is
opened again whenever it ends. Everything that was changed is as before in the end; after a crash the next start sees to
it. An interface that was made beforehand (`ip tuntap add`) stays, without what was put on it.

Where everything goes through the tunnel, nothing goes past it: when the relay has all of IPv4 and the tunnel has no
IPv6, IPv6 is unreachable until that comes (\"unreachable ::/1 8000::/1\" is printed), and the other way round. With
--route or --target for one IP version alone, the other one is left as it is.

Name servers go to systemd-resolved where that runs, else into /etc/resolv.conf, which keeps its mode and owner; a
symbolic link there is replaced by a file until the end. Only one client at a time can have that file: a second one
says so and leaves it alone.

Needs the capability CAP_NET_ADMIN: run as root; or `setcap cap_net_admin+ep` the program, then set BAUTA_STATE_DIR to a
directory that you may write to (what has to be undone after a crash is written there, in /run/bauta otherwise), and use
--no-dns where systemd-resolved does not run.

Examples:
  bauta tun --via https://relay.example
  bauta tun --via https://ingress.example --via https://egress.example:4433 --credentials @token
  bauta tun --via https://relay.example --route 10.0.0.0/8 --route fd00::/8 --no-dns
  bauta tun --via https://relay.example --advertise 192.168.7.0/24 --route 192.168.8.0/24
  bauta tun --via https://relay.example --target 198.51.100.0/24 --ipproto 6 --name vpn0";

impl TunArgs {
    /// What the arguments say, by `route`.
    pub(crate) fn client(&self, route: RouteOptions) -> Client {
        Client {
            route,
            scope: Scope {
                target: self.target.clone(),
                protocol: self.ipproto,
            },
            name: self.name.clone(),
            mtu: self.mtu,
            offload: match self.no_offload {
                true => Offload::Off,
                false => Offload::Auto,
            },
            routes: self.route.clone(),
            advertise: self.advertise.clone(),
            dns: !self.no_dns,
        }
    }
}

/// A prefix without bits behind its length; an address is one by itself.
fn prefix(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Ok(address.into());
    }
    match text.parse::<IpNet>() {
        Ok(prefix) if prefix.trunc() == prefix => Ok(prefix),
        Ok(prefix) => Err(format!(
            "has bits behind its prefix length, {} has none",
            prefix.trunc()
        )),
        Err(_) => Err("must be an address, or a prefix such as 10.0.0.0/8 or fd00::/8".to_owned()),
    }
}

fn interface(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let rest = text.replacen("%d", "", 1);
    let fits = (1..=NAME_CHARS_MAX).contains(&text.len()) && !matches!(text, "." | "..");
    match fits && rest.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "must be 1 to {NAME_CHARS_MAX} letters, digits, \".\", \"_\" and \"-\", with one %d at most"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        assert_eq!(prefix("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(prefix("192.0.2.7").unwrap().to_string(), "192.0.2.7/32");
        assert_eq!(prefix("::/0").unwrap().to_string(), "::/0");
        assert!(prefix("10.0.0.1/8").unwrap_err().contains("10.0.0.0/8"));
        assert!(prefix("example").is_err());
    }

    #[test]
    fn names_of_interfaces() {
        for name in ["bauta%d", "vpn0", "a.b-c_d"] {
            assert_eq!(interface(name).unwrap(), name);
        }
        for name in ["", "..", "a/b", "%d%d", "%s", "abcdefghijklmnop"] {
            assert!(interface(name).is_err(), "{name}");
        }
    }
}
