//! Which worker a QUIC packet belongs to, decided by a keyed hash of its connection ID: once in Rust, once in the
//! kernel.
//!
//! ```text
//!   long header    1xxxxxxx | version (4) | length (1) | destination connection ID …        ID at offset 6
//!   short header   0xxxxxxx | destination connection ID …                                   ID at offset 1
//!
//!   w0, w1 = the first two words of the ID, big endian
//!   h      = (w0 ^ k0) * k1 + (w1 ^ k2) * k3          in 32 bits, k1 and k3 odd
//!   worker = (h >> 16) mod workers
//! ```
//!
//! Connection IDs that a server issues are drawn until the hash names the worker that owns the connection, so packets
//! keep coming home after the client's address has changed, and nobody without the key learns which worker that is. The
//! hash is not cryptographic: its key hides a scheduling decision, nothing else.
//!
//! Invariants:
//! - [`Steer::worker_of_packet`] and the program agree on every packet, short and malformed ones included: a packet
//!   that ends before the hashed bytes belongs to worker 0.
//! - The program numbers sockets in the order in which they joined the group (`listen::bind_group`). Closing one of
//!   them moves the last into its place: a group is closed as a whole.
//!
//! Deliberately absent: packets that arrive at the wrong worker all the same (a kernel that refuses the program) are
//! the mailbox's business.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;

use libc::sock_filter;

use super::sys;

/// Bytes of a connection ID that are hashed; connection IDs must be at least this long.
pub const HASHED_BYTES: usize = 8;

/// Most workers that 16 bits of hash can tell apart.
pub const WORKERS_MAX: u32 = 1 << 16;

/// Offset of the destination connection ID behind a long header (RFC 8999 section 5.1).
const LONG_HEADER_OFFSET: usize = 6;
/// Offset of the destination connection ID behind a short header (RFC 8999 section 5.2).
const SHORT_HEADER_OFFSET: usize = 1;
/// The bit of the first byte that tells them apart.
const LONG_HEADER: u8 = 0x80;

/// The keyed hash. Equal values steer equally.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Steer {
    key: [u32; 4],
    workers: u32,
}

impl Steer {
    /// `key` is random, one per group of sockets; `workers` is the number of sockets in it.
    ///
    /// # Panics
    /// If `workers` is zero or above [`WORKERS_MAX`].
    #[must_use]
    pub fn new(key: [u32; 4], workers: u32) -> Self {
        assert!(
            (1..=WORKERS_MAX).contains(&workers),
            "{workers} workers; possible are 1 to {WORKERS_MAX}"
        );
        let [k0, k1, k2, k3] = key;
        Self {
            // An even multiplier would lose the top bit of the word.
            key: [k0, k1 | 1, k2, k3 | 1],
            workers,
        }
    }

    /// Number of workers.
    #[must_use]
    pub const fn workers(&self) -> u32 {
        self.workers
    }

    /// The worker that packets with this destination connection ID are steered to. IDs below [`HASHED_BYTES`] belong to
    /// worker 0.
    #[must_use]
    pub fn worker_of(&self, connection_id: &[u8]) -> u32 {
        let Some(&[a, b, c, d, e, f, g, h]) = connection_id.first_chunk::<HASHED_BYTES>() else {
            return 0;
        };
        let [k0, k1, k2, k3] = self.key;
        let first = (u32::from_be_bytes([a, b, c, d]) ^ k0).wrapping_mul(k1);
        let second = (u32::from_be_bytes([e, f, g, h]) ^ k2).wrapping_mul(k3);
        (first.wrapping_add(second) >> 16) % self.workers
    }

    /// The worker that a UDP payload is steered to: what [`program`](Self::program) computes.
    #[must_use]
    pub fn worker_of_packet(&self, packet: &[u8]) -> u32 {
        let offset = match packet.first() {
            Some(first) if first & LONG_HEADER != 0 => LONG_HEADER_OFFSET,
            Some(_) => SHORT_HEADER_OFFSET,
            None => return 0,
        };
        packet.get(offset..).map_or(0, |id| self.worker_of(id))
    }

    /// The same as classic BPF, for `SO_ATTACH_REUSEPORT_CBPF`. Offset 0 is the first byte of the UDP payload, and a
    /// load beyond the end makes the program return 0.
    #[must_use]
    pub fn program(&self) -> Vec<sock_filter> {
        use libc::{
            BPF_A, BPF_ABS, BPF_ADD, BPF_ALU, BPF_B, BPF_IMM, BPF_IND, BPF_JA, BPF_JMP, BPF_JSET,
            BPF_K, BPF_LD, BPF_LDX, BPF_MEM, BPF_MOD, BPF_MUL, BPF_RET, BPF_RSH, BPF_ST, BPF_W,
            BPF_X, BPF_XOR,
        };
        let op = |code: u32, k: u32| sock_filter {
            code: code as u16,
            jt: 0,
            jf: 0,
            k,
        };
        let [k0, k1, k2, k3] = self.key;
        let (long, short) = (LONG_HEADER_OFFSET as u32, SHORT_HEADER_OFFSET as u32);
        vec![
            // X = offset of the connection ID
            op(BPF_LD | BPF_B | BPF_ABS, 0),
            sock_filter {
                jf: 2,
                ..op(BPF_JMP | BPF_JSET | BPF_K, LONG_HEADER.into())
            },
            op(BPF_LDX | BPF_W | BPF_IMM, long),
            op(BPF_JMP | BPF_JA, 1),
            op(BPF_LDX | BPF_W | BPF_IMM, short),
            // M[0] = (w0 ^ k0) * k1
            op(BPF_LD | BPF_W | BPF_IND, 0),
            op(BPF_ALU | BPF_XOR | BPF_K, k0),
            op(BPF_ALU | BPF_MUL | BPF_K, k1),
            op(BPF_ST, 0),
            // A = (w1 ^ k2) * k3
            op(BPF_LD | BPF_W | BPF_IND, 4),
            op(BPF_ALU | BPF_XOR | BPF_K, k2),
            op(BPF_ALU | BPF_MUL | BPF_K, k3),
            // A = ((M[0] + A) >> 16) mod workers
            op(BPF_LDX | BPF_W | BPF_MEM, 0),
            op(BPF_ALU | BPF_ADD | BPF_X, 0),
            op(BPF_ALU | BPF_RSH | BPF_K, 16),
            op(BPF_ALU | BPF_MOD | BPF_K, self.workers),
            op(BPF_RET | BPF_A, 0),
        ]
    }
}

/// Prints the number of workers and not the key.
impl std::fmt::Debug for Steer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steer")
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

/// Makes the kernel distribute the datagrams of a group by `program`. One socket stands for the whole group.
///
/// # Errors
/// When the kernel refuses the program; the group then distributes by a hash of the addresses.
pub fn attach(group: &UdpSocket, program: &[sock_filter]) -> io::Result<()> {
    sys::attach_reuseport_program(group.as_fd(), program)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::net::listen::{Sharing, bind_group};

    /// Just enough of classic BPF (bpf(4), Linux networking/filter.rst) to run any program of the instructions above.
    fn interpret(program: &[sock_filter], packet: &[u8]) -> u32 {
        let (mut a, mut x, mut memory) = (0u32, 0u32, [0u32; 16]);
        let mut pc = 0;
        let word = |at: u32| {
            let bytes = packet.get(at as usize..)?.first_chunk::<4>()?;
            Some(u32::from_be_bytes(*bytes))
        };
        loop {
            let &sock_filter { code, jt, jf, k } = &program[pc];
            pc += 1;
            match code {
                0x30 => match packet.get(k as usize) {
                    Some(byte) => a = u32::from(*byte),
                    None => return 0,
                },
                0x40 => match word(x.wrapping_add(k)) {
                    Some(value) => a = value,
                    None => return 0,
                },
                0x01 => x = k,
                0x61 => x = memory[k as usize],
                0x02 => memory[k as usize] = a,
                0x45 => pc += usize::from(if a & k != 0 { jt } else { jf }),
                0x05 => pc += k as usize,
                0xa4 => a ^= k,
                0x24 => a = a.wrapping_mul(k),
                0x0c => a = a.wrapping_add(x),
                0x74 => a >>= k,
                0x94 => a %= k,
                0x16 => return a,
                other => panic!("instruction {other:#x} is not interpreted"),
            }
        }
    }

    proptest! {
        #[test]
        fn the_program_equals_the_function(
            key in any::<[u32; 4]>(),
            workers in 1u32..=64,
            packet in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let steer = Steer::new(key, workers);
            let worker = steer.worker_of_packet(&packet);
            prop_assert!(worker < workers);
            prop_assert_eq!(interpret(&steer.program(), &packet), worker);
        }

        #[test]
        fn both_headers_lead_to_the_same_worker(
            key in any::<[u32; 4]>(),
            id in any::<[u8; 20]>(),
            first in any::<u8>(),
        ) {
            let steer = Steer::new(key, 7);
            let short = [&[first & 0x7f][..], &id].concat();
            let long = [&[first | 0x80, 0, 0, 0, 1, 20][..], &id].concat();
            let worker = steer.worker_of(&id);
            prop_assert_eq!(steer.worker_of_packet(&short), worker);
            prop_assert_eq!(steer.worker_of_packet(&long), worker);
        }
    }

    #[test]
    fn identifiers_spread_over_all_workers() {
        let steer = Steer::new([0x1234_5678, 0x9e37_79b9, 0x0bad_cafe, 0x85eb_ca6b], 8);
        let mut counts = [0u32; 8];
        for i in 0..80_000u64 {
            // Counters are the worst identifiers there are.
            counts[steer.worker_of(&i.to_be_bytes()) as usize] += 1;
        }
        assert!(
            counts.iter().all(|count| (5_000..20_000).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn the_key_is_not_printed() {
        let printed = format!("{:?}", Steer::new([77, 77, 77, 77], 3));
        assert_eq!(printed, "Steer { workers: 3, .. }");
    }

    #[test]
    fn the_kernel_agrees() {
        const WORKERS: u32 = 3;
        let group = bind_group(
            ([127, 0, 0, 1], 0).into(),
            WORKERS as usize,
            Sharing::default(),
        )
        .unwrap();
        let address = group[0].local_addr().unwrap();
        let steer = Steer::new(
            [0xdead_beef, 0x9e37_79b9, 0x0123_4567, 0x85eb_ca6b],
            WORKERS,
        );
        attach(&group[0], &steer.program()).expect("this kernel refuses SO_ATTACH_REUSEPORT_CBPF");
        for socket in &group {
            socket
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
        }

        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let mut hits = [0; WORKERS as usize];
        for length in (0..40).cycle().take(600) {
            let packet: Vec<u8> = std::iter::repeat_with(|| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .take(length)
            .collect();
            let worker = steer.worker_of_packet(&packet) as usize;
            sender.send_to(&packet, address).unwrap();
            let mut buffer = [0; 64];
            let received = group[worker]
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("not at worker {worker}: {packet:02x?}: {error}"));
            assert_eq!(&buffer[..received], packet);
            hits[worker] += 1;
        }
        assert!(hits.iter().all(|hits| *hits > 50), "{hits:?}");
    }
}
