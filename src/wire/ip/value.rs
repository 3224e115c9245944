//! The unread rest of a capsule's value.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::IpCapsuleError;
use crate::wire::varint;

/// Reads fields off the front. Whatever is asked for and not there is [`IpCapsuleError::Truncated`].
#[derive(Clone, Debug)]
pub(super) struct Value<'a>(&'a [u8]);

/// One of the two versions, as a field of one byte says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V4,
    V6,
}

impl<'a> Value<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) const fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Reads entries up to the end. `entry` takes something or fails, so that there is an end.
    pub(super) fn entries<T>(
        mut self,
        mut entry: impl FnMut(&mut Self) -> Result<T, IpCapsuleError>,
    ) -> Result<Vec<T>, IpCapsuleError> {
        let mut entries = Vec::new();
        while !self.0.is_empty() {
            entries.push(entry(&mut self)?);
        }
        Ok(entries)
    }

    /// Reads a count and as many entries, each of one byte at least: a count that promises more than there is costs
    /// no more than what is there.
    pub(super) fn counted<T>(
        &mut self,
        mut entry: impl FnMut(&mut Self) -> Result<T, IpCapsuleError>,
    ) -> Result<Vec<T>, IpCapsuleError> {
        let count = self.varint()?;
        (0..count).map(|_| entry(self)).collect()
    }

    pub(super) fn varint(&mut self) -> Result<u64, IpCapsuleError> {
        let (value, used) = varint::decode(self.0).ok_or(IpCapsuleError::Truncated)?;
        self.take(used as u64)?;
        Ok(value)
    }

    pub(super) fn byte(&mut self) -> Result<u8, IpCapsuleError> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], IpCapsuleError> {
        let (array, rest) = self
            .0
            .split_first_chunk()
            .ok_or(IpCapsuleError::Truncated)?;
        self.0 = rest;
        Ok(*array)
    }

    pub(super) fn take(&mut self, len: u64) -> Result<&'a [u8], IpCapsuleError> {
        let split = usize::try_from(len)
            .ok()
            .and_then(|len| self.0.split_at_checked(len));
        let (taken, rest) = split.ok_or(IpCapsuleError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn version(&mut self) -> Result<Version, IpCapsuleError> {
        match self.byte()? {
            4 => Ok(Version::V4),
            6 => Ok(Version::V6),
            version => Err(IpCapsuleError::Version { version }),
        }
    }

    pub(super) fn address(&mut self, version: Version) -> Result<IpAddr, IpCapsuleError> {
        match version {
            Version::V4 => self
                .array::<4>()
                .map(|octets| Ipv4Addr::from(octets).into()),
            Version::V6 => self
                .array::<16>()
                .map(|octets| Ipv6Addr::from(octets).into()),
        }
    }

    /// Version, address and prefix length. Bits behind the prefix length may be set.
    pub(super) fn prefix(&mut self) -> Result<IpNet, IpCapsuleError> {
        let version = self.version()?;
        let (address, len) = (self.address(version)?, self.byte()?);
        let max = match version {
            Version::V4 => 32,
            Version::V6 => 128,
        };
        IpNet::new(address, len).map_err(|_| IpCapsuleError::PrefixLength { len, max })
    }
}
