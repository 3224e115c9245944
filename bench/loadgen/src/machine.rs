//! What a figure was measured on: the machine, and the state it was in.
//!
//! A virtual machine changes its speed without a word. A system call and a copy, timed beside each run, tell whether
//! two runs can be compared.

use std::fs;
use std::hint::black_box;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use bauta::net::clock;
use serde::{Deserialize, Serialize};

/// Repetitions of each probe; the median counts.
const PROBES: usize = 9;
const SYSCALLS: u32 = 2_000;
const COPIES: u32 = 200;
const SEALS: u32 = 1_000;
const COPY_BYTES: usize = 64 * 1024;

/// A machine and its state.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// A system call that does nothing (getppid), in nanoseconds.
    pub(crate) syscall_ns: f64,
    /// A copy of 64 KiB, in microseconds.
    pub(crate) copy_64k_us: f64,
    /// AES-128-GCM over 1200 bytes, sealing, in nanoseconds. A relay opens and seals each datagram once per QUIC leg.
    pub(crate) seal_1200_ns: f64,
}

impl Machine {
    /// Looks at this machine, which takes some milliseconds.
    pub(crate) fn look() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let (from, mut to) = (vec![1u8; COPY_BYTES], vec![0u8; COPY_BYTES]);
        Self {
            cpu: model
                .unwrap_or("unknown")
                .trim_matches([' ', '\t', ':'])
                .to_owned(),
            cores: crate::place::cores().len(),
            kernel: kernel.trim().to_owned(),
            syscall_ns: median(SYSCALLS, || {
                black_box(std::os::unix::process::parent_id());
            }),
            copy_64k_us: median(COPIES, || {
                to.copy_from_slice(black_box(&from));
                black_box(&mut to);
            }) / 1_000.0,
            seal_1200_ns: seal(),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}, {} cores, Linux {}; a system call took {:.0} ns, a copy of 64 KiB {:.2} us, AES-128-GCM of 1200 \
             bytes {:.0} ns",
            self.cpu, self.cores, self.kernel, self.syscall_ns, self.copy_64k_us, self.seal_1200_ns
        )
    }
}

fn seal() -> f64 {
    let Ok(key) = UnboundKey::new(&AES_128_GCM, &[7; 16]) else {
        return 0.0;
    };
    let (key, mut data) = (LessSafeKey::new(key), [0u8; 1_200]);
    median(SEALS, || {
        let nonce = Nonce::assume_unique_for_key([1; NONCE_LEN]);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from([0u8; 9]), black_box(&mut data));
        drop(black_box(tag));
    })
}

/// Nanoseconds that `act` takes.
fn median(times: u32, mut act: impl FnMut()) -> f64 {
    let mut probes = [0.0; PROBES];
    for probe in &mut probes {
        let began = clock::now();
        (0..times).for_each(|_| act());
        *probe = began.elapsed().as_nanos() as f64 / f64::from(times);
    }
    probes.sort_by(f64::total_cmp);
    probes[PROBES / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_something() {
        let machine = Machine::look();
        assert!(machine.cores > 0 && machine.syscall_ns > 0.0 && machine.copy_64k_us > 0.0);
        assert!(machine.seal_1200_ns > 0.0);
        assert!(!machine.kernel.is_empty() && !machine.cpu.is_empty());
    }
}
