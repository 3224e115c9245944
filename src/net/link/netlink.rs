//! Requests to the kernel about interfaces and addresses (rtnetlink); [routes](super::routes) have a file of their own.

use std::path::PathBuf;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::{Handle, LinkUnspec};

use super::error::LinkError;

/// No link-local address: nobody on the other side answers to it.
const ADDR_GEN_NONE: &str = "1";

/// A connection to the kernel.
#[derive(Clone, Debug)]
pub struct Links {
    pub(super) handle: Handle,
}

impl Links {
    /// Connects. The task that drives the connection runs on the current tokio runtime.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub fn open() -> Result<Self, LinkError> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|source| LinkError::refused("opening a netlink socket", source))?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// The index of an interface.
    ///
    /// # Errors
    /// [`LinkError::NoInterface`], or what the kernel says.
    pub async fn index(&self, name: &str) -> Result<u32, LinkError> {
        let mut links = self.handle.link().get().match_name(name).execute();
        match links.try_next().await {
            Ok(Some(link)) => Ok(link.header.index),
            Ok(None) => Err(LinkError::NoInterface {
                name: name.to_owned(),
            }),
            Err(error) => match failure(format!("finding interface {name}"), error) {
                error if error.errno() == Some(libc::ENODEV) => Err(LinkError::NoInterface {
                    name: name.to_owned(),
                }),
                error => Err(error),
            },
        }
    }

    /// Sets the MTU of an interface, where one is given, and switches it on. It gets no link-local address.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn set_up(&self, index: u32, name: &str, mtu: Option<u16>) -> Result<(), LinkError> {
        // A kernel without IPv6 does not have the setting, and needs none.
        drop(std::fs::write(
            setting(name, "addr_gen_mode"),
            ADDR_GEN_NONE,
        ));
        let mut link = LinkUnspec::new_with_index(index).up();
        if let Some(mtu) = mtu {
            link = link.mtu(mtu.into());
        }
        let request = self.handle.link().set(link.build());
        let doing = || format!("setting up {name}");
        request.execute().await.map_err(|e| failure(doing(), e))
    }

    /// Changes the MTU of an interface.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn set_mtu(&self, index: u32, mtu: u16) -> Result<(), LinkError> {
        let link = LinkUnspec::new_with_index(index).mtu(mtu.into());
        let request = self.handle.link().set(link.build());
        let doing = || format!("setting the MTU to {mtu}");
        request.execute().await.map_err(|e| failure(doing(), e))
    }

    /// Gives an interface an address; the prefix length makes the route that comes with it. Returns `false` when it has
    /// the address already. IPv6 is switched on for the interface where the system has it off by default.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn add_address(
        &self,
        index: u32,
        name: &str,
        address: IpNet,
    ) -> Result<bool, LinkError> {
        let mut outcome = self.try_add_address(index, address).await;
        if let Err(error) = &outcome
            && error.errno() == Some(libc::EACCES)
            && address.addr().is_ipv6()
        {
            let path = setting(name, "disable_ipv6");
            std::fs::write(&path, "0").map_err(LinkError::file(path))?;
            outcome = self.try_add_address(index, address).await;
        }
        unless_there(outcome)
    }

    async fn try_add_address(&self, index: u32, address: IpNet) -> Result<(), LinkError> {
        let addresses = self.handle.address();
        let mut request = addresses.add(index, address.addr(), address.prefix_len());
        // The relay has seen to it that nobody else has the address, and nobody on the link could answer.
        let flags = &mut request.message_mut().header.flags;
        *flags |= AddressHeaderFlags::Nodad;
        let doing = || format!("adding address {address}");
        request.execute().await.map_err(|e| failure(doing(), e))
    }

    /// Takes an address away. One that is not there is fine.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn remove_address(&self, index: u32, address: IpNet) -> Result<(), LinkError> {
        let addresses = self.handle.address();
        let mut request = addresses.add(index, address.addr(), address.prefix_len());
        let message = request.message_mut().clone();
        let outcome = addresses.del(message).execute().await;
        unless_gone(format!("removing address {address}"), outcome)
    }
}

/// A setting of IPv6 for one interface.
fn setting(name: &str, key: &str) -> PathBuf {
    PathBuf::from(format!("/proc/sys/net/ipv6/conf/{name}/{key}"))
}

/// `false` for what is there already.
pub(super) fn unless_there(outcome: Result<(), LinkError>) -> Result<bool, LinkError> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.errno() == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn unless_gone(
    doing: String,
    outcome: Result<(), rtnetlink::Error>,
) -> Result<(), LinkError> {
    let gone = [
        Some(libc::ESRCH),
        Some(libc::ENODEV),
        Some(libc::EADDRNOTAVAIL),
        Some(libc::ENOENT),
    ];
    match outcome.map_err(|error| failure(doing, error)) {
        Err(error) if gone.contains(&error.errno()) => Ok(()),
        outcome => outcome,
    }
}

pub(super) fn failure(doing: String, error: rtnetlink::Error) -> LinkError {
    if let rtnetlink::Error::NetlinkError(message) = &error {
        return LinkError::refused(doing, message.to_io());
    }
    LinkError::Netlink {
        doing,
        message: error.to_string(),
    }
}
