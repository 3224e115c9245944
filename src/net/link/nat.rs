//! NAT by nftables: one table of our own, which nobody else's rules are in.

use std::fmt;

use ipnet::IpNet;

use super::error::LinkError;
use super::run::run;

const DOING: &str = "NAT";

/// The rules that replace the addresses of clients by the relay's own on their way out. Prints what `nft -f` reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatTable {
    interface: String,
    pools: Vec<IpNet>,
}

impl NatTable {
    /// Rules for packets from `pools` that leave by anything but `interface`, at least one pool.
    #[must_use]
    pub fn new(interface: &str, pools: &[IpNet]) -> Self {
        Self {
            interface: interface.to_owned(),
            pools: pools.to_vec(),
        }
    }

    /// The name of the table, of family `inet`: what names of nftables are made of, one for each interface.
    #[must_use]
    pub fn name(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let interface: String = self.interface.chars().map(plain).collect();
        format!("bauta_{interface}")
    }

    /// Installs the table in place of an older one of that name.
    pub(super) async fn apply(&self) -> Result<(), LinkError> {
        let name = self.name();
        let text = format!("table inet {name}\ndelete table inet {name}\n{self}");
        run("nft", DOING, vec!["-f".into(), "-".into()], text).await
    }
}

/// Removes a table. One that is not there is fine.
pub(super) async fn remove(name: &str) -> Result<(), LinkError> {
    let text = format!("table inet {name}\ndelete table inet {name}\n");
    run("nft", DOING, vec!["-f".into(), "-".into()], text).await
}

impl fmt::Display for NatTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.name())?;
        writeln!(f, "\tchain postrouting {{")?;
        writeln!(
            f,
            "\t\ttype nat hook postrouting priority srcnat; policy accept;"
        )?;
        for (family, is_v6) in [("ip", false), ("ip6", true)] {
            let pools = self.pools.iter();
            let pools: Vec<_> = pools
                .filter(|pool| pool.addr().is_ipv6() == is_v6)
                .map(ToString::to_string)
                .collect();
            if !pools.is_empty() {
                writeln!(
                    f,
                    "\t\t{family} saddr {{ {} }} oifname != \"{}\" masquerade",
                    pools.join(", "),
                    self.interface
                )?;
            }
        }
        writeln!(f, "\t}}")?;
        writeln!(f, "}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_as_nft_reads_it() {
        let pools = ["10.89.0.0/16", "fd00:ba::/48", "100.64.0.0/10"];
        let pools: Vec<IpNet> = pools.iter().map(|pool| pool.parse().unwrap()).collect();
        let table = NatTable::new("bauta-0.x", &pools);
        assert_eq!(table.name(), "bauta_bauta_0_x");
        assert_eq!(
            table.to_string(),
            "table inet bauta_bauta_0_x {\n\
             \tchain postrouting {\n\
             \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
             \t\tip saddr { 10.89.0.0/16, 100.64.0.0/10 } oifname != \"bauta-0.x\" masquerade\n\
             \t\tip6 saddr { fd00:ba::/48 } oifname != \"bauta-0.x\" masquerade\n\
             \t}\n\
             }\n"
        );
        assert!(!NatTable::new("t", &pools[..1]).to_string().contains("ip6"));
    }
}
