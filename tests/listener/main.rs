//! Listeners, handlers and sessions, through the public interface alone.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod edges;
mod embedding;
mod life;
mod proxies;
mod raw;
mod sessions;

use bauta::{Handler, Identity, Listener, ListenerBuilder};

use self::raw::Raw;

/// A listener for tests, and the authority to trust.
struct Server {
    listener: Listener,
    ca_pem: String,
}

impl Server {
    /// One for HTTP/1.1, with one worker.
    fn start(handler: impl Handler) -> Self {
        Self::build(Listener::h1(([127, 0, 0, 1], 0)).handler(handler))
    }

    fn build(builder: ListenerBuilder) -> Self {
        let (identity, ca_pem) = Identity::development(&["relay.example"]).unwrap();
        let listener = builder.identity(identity).workers(1).start().unwrap();
        Self { listener, ca_pem }
    }

    fn connect(&self) -> Raw {
        Raw::connect(self.listener.local_addr(), &self.ca_pem)
    }
}
