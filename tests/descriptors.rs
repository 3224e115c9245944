//! A relay that is out of descriptors: TCP connections wait, nothing spins, and what comes free is used.
//!
//! The limit is that of a process, so the test starts itself again, with a lower one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::env;
use std::fs::File;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use bauta::net::{Driver, DriverConfig, Network, TcpClose, TcpEvent, TcpId, clock};

/// Set in the process that has few descriptors.
const FEW: &str = "BAUTA_TEST_FEW_DESCRIPTORS";
/// After this long a listener tries again by itself.
const PAUSE: Duration = Duration::from_millis(100);

#[test]
fn connections_wait_for_descriptors() {
    if env::var_os(FEW).is_some() {
        return with_few_descriptors();
    }
    let child = Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" --nocapture"])
        .arg(env::current_exe().unwrap())
        .env(FEW, "")
        .output()
        .unwrap();
    assert!(child.status.success(), "{child:?}");
}

fn accepted(driver: &mut Driver, now: Instant) -> Option<TcpId> {
    let (_, _, event) = driver.poll_tcp(now)?;
    match event {
        TcpEvent::Accepted { socket, .. } => Some(socket),
        TcpEvent::Connected
        | TcpEvent::Ready { .. }
        | TcpEvent::Failed(_)
        | TcpEvent::Broken(_) => panic!("{event:?}"),
    }
}

fn with_few_descriptors() {
    let mut driver = Driver::new(DriverConfig::default()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    driver.add_tcp_listener(listener, 1).unwrap();
    let _clients = [(); 3].map(|()| TcpStream::connect(address).unwrap());
    let mut files = Vec::new();
    let error = loop {
        match File::open("/dev/null") {
            Ok(file) => files.push(file),
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
    let deadline = clock::now() + Duration::from_secs(10);
    while !driver.has_tcp_events() {
        assert!(clock::now() < deadline);
        let _woken = driver.poll_ready_nonblocking().unwrap();
    }

    let now = clock::now();
    // One failed call, and then silence until the pause is over.
    for _ in 0..10 {
        assert_eq!(accepted(&mut driver, now), None);
        assert!(!driver.has_tcp_events());
    }
    assert_eq!(driver.stats().tcp_accept_failed, 1);

    // Somebody else gives a descriptor back, which only trying finds out.
    drop(files.pop());
    assert_eq!(accepted(&mut driver, now), None);
    let now = now + PAUSE;
    let first = accepted(&mut driver, now).unwrap();
    assert_eq!(accepted(&mut driver, now), None);
    assert_eq!(driver.stats().tcp_accept_failed, 2);

    // What the driver itself gives back is used at once.
    driver.close(first, TcpClose::Orderly);
    let second = accepted(&mut driver, now);
    assert!(second.is_some());
    assert_eq!(accepted(&mut driver, now), None);

    // Without a descriptor there is no connection to somebody else either.
    let refused: io::Result<TcpId> = driver.connect_tcp(address, 2);
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EMFILE));
    let stats = driver.stats();
    assert_eq!((stats.tcp_accepted, stats.tcp_connects_failed), (2, 1));
}
