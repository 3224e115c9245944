//! Where the fields are that differ between the packets of a flow (RFC 791, RFC 8200, RFC 9293, RFC 768).

/// In an IPv4 header.
pub(super) mod ipv4 {
    pub(crate) const TOTAL_LENGTH: usize = 2;
    pub(crate) const IDENTIFICATION: usize = 4;
    pub(crate) const FLAGS: usize = 6;
    pub(crate) const CHECKSUM: usize = 10;
    /// The bit of [`FLAGS`] for more fragments.
    pub(crate) const MORE_FRAGMENTS: u8 = 0x20;
}

/// In an IPv6 header.
pub(super) mod ipv6 {
    pub(crate) const PAYLOAD_LENGTH: usize = 4;
}

/// In a TCP header.
pub(super) mod tcp {
    pub(crate) const SEQUENCE: usize = 4;
    pub(crate) const ACKNOWLEDGMENT: usize = 8;
    pub(crate) const DATA_OFFSET: usize = 12;
    pub(crate) const FLAGS: usize = 13;
    pub(crate) const WINDOW: usize = 14;
    pub(crate) const CHECKSUM: usize = 16;
    pub(crate) const URGENT: usize = 18;
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const PSH: u8 = 0x08;
    pub(crate) const ACK: u8 = 0x10;
    pub(crate) const CWR: u8 = 0x80;

    /// Bytes of the header, options included; `None` for one that is not all there.
    pub(crate) fn header_len(segment: &[u8]) -> Option<usize> {
        let len = usize::from(segment.get(DATA_OFFSET)? >> 4) * 4;
        (20..=segment.len()).contains(&len).then_some(len)
    }
}

/// In a UDP header.
pub(super) mod udp {
    pub(crate) const HEADER_BYTES: usize = 8;
    pub(crate) const LENGTH: usize = 4;
    pub(crate) const CHECKSUM: usize = 6;
}

/// Reads a field of a header that is known to be there.
pub(super) fn u16_at(header: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([header[at], header[at + 1]])
}

/// Reads a field of a header that is known to be there.
pub(super) fn u32_at(header: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

/// Writes a field of a header that is known to be there.
pub(super) fn put_u16(header: &mut [u8], at: usize, value: u16) {
    header[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Writes a field of a header that is known to be there.
pub(super) fn put_u32(header: &mut [u8], at: usize, value: u32) {
    header[at..at + 4].copy_from_slice(&value.to_be_bytes());
}
