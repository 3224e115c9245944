use std::error::Error as _;
use std::time::Duration;

use super::*;
use crate::error::ErrorKind;
use crate::wire::carrier::Carrier;
use crate::wire::target::Host;

const URL: &str = "https://relay.example";

#[track_caller]
fn wrong(builder: ClientBuilder) -> String {
    let error = builder.build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    error.source().unwrap().to_string()
}

fn client() -> Client {
    let builder = Client::builder(URL).trust(Trust::dangerous_anybody());
    builder.build().unwrap()
}

#[test]
fn every_wrong_option_is_named_with_its_value_and_bounds() {
    let text = wrong(
        Client::builder("http://relay.example")
            .carriers([Carrier::H3, Carrier::H2, Carrier::H3])
            .head_starts(Duration::from_secs(11), Duration::ZERO)
            .handshake_timeout(Duration::ZERO)
            .open_timeout(Duration::from_secs(301))
            .pool_idle_timeout(Duration::from_secs(3_601))
            .streams_per_connection(0)
            .receive_queue(0),
    );
    for part in [
        "relay: \"http://relay.example\": must be https://HOST[:PORT]",
        "carriers: h3: must not be named twice",
        "head_starts.first: 11s: must be from 0ns to 10s",
        "handshake_timeout: 0ns: must be from 10ms to 60s",
        "open_timeout: 301s: must be from 1ms to 300s",
        "pool_idle_timeout: 3601s: must be from 0ns to 3600s",
        "streams_per_connection: 0: must be from 1 to 65536",
        "receive_queue: 0: must be from 1 to 1000000",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("head_starts.second"), "{text}");
    let text = wrong(Client::builder(URL).carriers([]));
    assert!(text.contains("at least one"), "{text}");
    let text = wrong(Client::builder(URL).hop(URL).hop(URL).hop(URL).hop(URL));
    assert_eq!(text, "hop: 5: must be from 1 to 4");
    let text = wrong(Client::builder(URL).udp_template("https://relay.example/{x}"));
    assert!(text.starts_with("udp_template: "), "{text}");
    let text = wrong(Client::builder(URL).trust(Trust::pinned([])));
    assert_eq!(text, "trust: no key is pinned");
    assert!(wrong(Client::builder(URL).trust(Trust::pem("nothing"))).contains("certificate"));
}

#[test]
fn reserved_fields_are_refused_by_name() {
    for name in [
        ":path",
        "host",
        "connection",
        "upgrade",
        "capsule-protocol",
        "via",
        "content-length",
        "content-encoding",
        "transfer-encoding",
    ] {
        let text = wrong(Client::builder(URL).header(name, "x"));
        assert!(
            text.starts_with("header: ") && text.contains(name),
            "{text}"
        );
    }
    let text = wrong(Client::builder(URL).header("x-token", "secret\r\nvia: x"));
    assert!(
        text.contains("x-token") && !text.contains("secret"),
        "{text}"
    );
    let connect = client().connect("target.example:443").header("host", "x");
    let error = connect.start_udp().unwrap_err();
    assert!(error.source().unwrap().to_string().contains("host"));
}

#[test]
fn wrong_targets_are_refused() {
    let client = client();
    for target in [
        "",
        "target.example",
        "target.example:0",
        "a\r\nb:1",
        "::1:443",
    ] {
        let error = client.connect(target).start_udp().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{target:?}");
    }
    let host = Host::Name("a\r\nvia: x".into());
    let error = client.connect(Target { host, port: 1 }).start_tcp();
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Configuration);
}

#[test]
fn handles_go_anywhere() {
    fn anywhere<T: Send + Sync + 'static>() {}
    anywhere::<Client>();
    anywhere::<Worker>();
    anywhere::<UdpTunnel>();
    anywhere::<TcpTunnel>();
    anywhere::<crate::TcpReadHalf>();
    anywhere::<crate::TcpWriteHalf>();
    anywhere::<crate::Events>();
    anywhere::<Error>();
}

#[test]
fn the_last_handle_takes_the_threads_along() {
    let client = client();
    let thread = client.0.running.take_thread().unwrap();
    let tunnel = client.connect("192.0.2.1:9").start_udp().unwrap();
    drop(client.clone());
    drop(client);
    assert!(!thread.is_finished());
    drop(tunnel);
    thread.join().unwrap();
}

#[test]
fn the_worker_goes_with_its_last_client() {
    let worker = Worker::new().unwrap();
    let thread = worker.0.take_thread().unwrap();
    let trust = Trust::dangerous_anybody();
    let client = Client::builder(URL).trust(trust).worker(&worker).build();
    drop(worker);
    assert!(!thread.is_finished());
    drop(client);
    thread.join().unwrap();
}

#[test]
fn a_worker_that_stops_ends_what_waits() {
    let client = client();
    let tunnel = client.connect("192.0.2.1:9").start_udp().unwrap();
    client.0.running.stop_and_join();
    assert!(matches!(
        tunnel.closed_blocking(),
        crate::CloseReason::Local
    ));
    let late = client.connect("192.0.2.1:9").start_udp().unwrap();
    let error = late.opened_blocking().unwrap_err();
    assert_eq!(error.source().unwrap().to_string(), "the worker has ended");
}
