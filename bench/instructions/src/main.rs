//! Counts the instructions that a relay spends on a datagram, under `valgrind --tool=callgrind`.
//!
//! ```text
//!   run (script) ─► valgrind ─► instructions SCENARIO ─► machines in one thread, a network in memory, virtual time
//!        │              └─► counts inside `measured_turn`, except inside `uncounted_…`
//!        └─► instructions per datagram, against baseline.json
//! ```
//!
//! Measured is what a worker does from receive call to send call: QUIC, HTTP/3, cryptography and our own code. Not
//! measured are system calls, the kernel, waiting, cache misses and everything else that takes time and is no
//! instruction.
//!
//! Two runs differ by very little but not by nothing: connection IDs, TLS keys and the keys of some hash maps are
//! random, and nobody below us lets them be chosen.

mod network;
mod node;
mod scenario;

use std::io;
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use self::scenario::SCENARIOS;

/// Datagrams that are counted unless told otherwise. What is random about a run is then a few hundredths of a per cent,
/// and valgrind needs a few seconds.
const DATAGRAMS: u64 = 10_000;

const USAGE: &str = "\
usage: instructions            print the names of all scenarios
       instructions SCENARIO [DATAGRAMS]
The count is made by bench/instructions/run.";

#[expect(clippy::print_stdout, reason = "the output of a program")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(name) = arguments.first() else {
        for scenario in SCENARIOS {
            println!("{}", scenario.name);
        }
        return ExitCode::SUCCESS;
    };
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name);
    let datagrams = match arguments.get(1) {
        Some(text) => text.parse().ok(),
        None => Some(DATAGRAMS),
    };
    let (Some(scenario), Some(datagrams), true) = (scenario, datagrams, arguments.len() <= 2)
    else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    log_as_a_relay();
    println!("datagrams {}", scenario::run(*scenario, datagrams));
    println!("cpu {}", cpu());
    ExitCode::SUCCESS
}

/// Where lines and spans below `info` are dropped decides what they cost, and there are several per packet.
fn log_as_a_relay() {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("info"))
        .with_writer(io::stderr)
        .init();
}

/// What memory copies and cryptography choose their code by. Under valgrind it is valgrind's processor that counts.
#[cfg(target_arch = "x86_64")]
fn cpu() -> String {
    let features = [
        ("aes", is_x86_feature_detected!("aes")),
        ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
        ("movbe", is_x86_feature_detected!("movbe")),
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("bmi2", is_x86_feature_detected!("bmi2")),
        ("vaes", is_x86_feature_detected!("vaes")),
    ];
    let present = features.iter().filter(|(_, present)| *present);
    let names: Vec<&str> = present.map(|(name, _)| *name).collect();
    format!("x86_64 {}", names.join(" "))
}

/// What memory copies and cryptography choose their code by.
#[cfg(not(target_arch = "x86_64"))]
fn cpu() -> String {
    std::env::consts::ARCH.to_owned()
}
