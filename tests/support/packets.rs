//! IP packets made by hand.

#![allow(
    dead_code,
    reason = "each test crate uses its own part of what is here"
)]

use std::net::IpAddr;

use bytes::Bytes;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
pub(crate) const UDP: u8 = 17;

/// The addresses of an IPv4 or IPv6 packet.
pub(crate) fn addresses(packet: &[u8]) -> (IpAddr, IpAddr) {
    fn at<const N: usize>(packet: &[u8], from: usize) -> [u8; N] {
        packet[from..from + N].try_into().expect("N bytes")
    }
    match packet[0] >> 4 {
        4 => (at::<4>(packet, 12).into(), at::<4>(packet, 16).into()),
        _ => (at::<16>(packet, 8).into(), at::<16>(packet, 24).into()),
    }
}

/// A packet of `len` bytes whose upper layer is zeros.
pub(crate) fn packet(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            bytes[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0]);
            bytes[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            bytes[12..16].copy_from_slice(&source.octets());
            bytes[16..20].copy_from_slice(&destination.octets());
            let sum = checksum(&bytes[..20]);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            bytes[0] = 0x60;
            bytes[4..6].copy_from_slice(&(len as u16 - 40).to_be_bytes());
            bytes[6..8].copy_from_slice(&[protocol, 64]);
            bytes[8..24].copy_from_slice(&source.octets());
            bytes[24..40].copy_from_slice(&destination.octets());
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => panic!("one version"),
    }
    bytes.into()
}

/// A packet that says who it is: an upper layer of eight bytes, all of them `mark`.
pub(crate) fn marked(source: IpAddr, destination: IpAddr, mark: u8) -> Bytes {
    let header = if source.is_ipv4() { 20 } else { 40 };
    let mut bytes = packet(source, destination, UDP, header + 8).to_vec();
    bytes[header..].fill(mark);
    bytes.into()
}

/// An ICMP message about nothing in particular.
pub(crate) fn ping(source: IpAddr, destination: IpAddr) -> Bytes {
    let (protocol, header) = match source {
        IpAddr::V4(_) => (ICMP, 20),
        IpAddr::V6(_) => (ICMPV6, 40),
    };
    let mut bytes = packet(source, destination, protocol, header + 8).to_vec();
    bytes[header] = if source.is_ipv4() { 8 } else { 128 };
    bytes.into()
}

/// Type and code of an ICMP message.
pub(crate) fn icmp(packet: &[u8]) -> Option<(u8, u8)> {
    match packet[0] >> 4 {
        4 if packet[9] == ICMP => Some((packet[20], packet[21])),
        6 if packet[6] == ICMPV6 => Some((packet[40], packet[41])),
        _ => None,
    }
}

fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks(2);
    let sum: u32 = words
        .map(|it| u32::from(it[0]) << 8 | u32::from(it[1]))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}
