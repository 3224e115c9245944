//! A handler of one's own: it looks at a field of the request, serves one target itself, leaves all others to the
//! built-in proxies, and rejects strangers with fields of its own.
//!
//! ```text
//!   request ─► Gate::accept ─┬─ no key ───────────► 403 with x-help
//!                            ├─ news.internal:80 ─► init (asks a database) ─► News ◄── messages ── another thread
//!                            └─ everything else ──► Proxies ─► target
//! ```
//!
//! ```console
//! $ cargo run --example custom_handler
//! ```

#![expect(clippy::print_stdout, reason = "an example prints what it does")]

use std::any::Any;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use bauta::{
    Accept, Actions, Client, Handler, Identity, Listener, Proxies, Reject, Request, Session, Trust,
    TunnelHandle,
};
use http::HeaderValue;

/// One handler serves all workers at once, through `&self`.
struct Gate {
    proxies: Proxies,
    subscribers: Sender<TunnelHandle>,
}

impl Handler for Gate {
    /// Runs between the packets of everybody else, so it must not wait for anything.
    fn accept(&self, request: &Request) -> Result<Accept, Reject> {
        let key = request.headers().get("x-key").cloned();
        let Some(key) = key else {
            return Err(Reject::forbidden()
                .reason("a key is missing")
                .header("x-help", HeaderValue::from_static("send x-key")));
        };
        let target = request.target().ok_or_else(Reject::not_found)?;
        if target.to_string() != "news.internal:80" {
            return self.proxies.accept(request);
        }
        let subscribers = self.subscribers.clone();
        // The answer waits for this future, and nobody else does.
        Ok(Accept::init(async move {
            let name = look_up(&key).await.ok_or_else(Reject::forbidden)?;
            Ok(News { name, subscribers })
        })
        .header("x-service", HeaderValue::from_static("news")))
    }
}

/// Stands for a database.
async fn look_up(key: &HeaderValue) -> Option<&'static str> {
    tokio::time::sleep(Duration::from_millis(20)).await;
    (key == "sesame").then_some("Ali")
}

/// A tunnel that ends here: what it says comes from another thread.
struct News {
    name: &'static str,
    subscribers: Sender<TunnelHandle>,
}

/// What that thread has to say.
struct Headline(&'static str);

impl Session for News {
    fn on_open(&mut self, actions: &mut Actions<'_>) {
        let greeting = format!("Hello {}.\n", self.name);
        let sent = actions.send_data(greeting);
        // Without an editor there will be no news.
        if sent.is_err() || self.subscribers.send(actions.handle()).is_err() {
            actions.close();
        }
    }

    fn on_message(&mut self, actions: &mut Actions<'_>, message: Box<dyn Any + Send>) {
        if let Ok(headline) = message.downcast::<Headline>() {
            actions.send_data(format!("News: {}.\n", headline.0)).ok();
        }
    }
}

/// Gives each subscriber two headlines, and ends the tunnel behind them.
fn edit(subscribers: Receiver<TunnelHandle>) {
    for handle in subscribers {
        for headline in ["masks are back", "relays forget"] {
            // The tunnel may be over by now, which needs no care.
            handle.message(Headline(headline)).ok();
        }
        handle.close();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (subscribers, editor) = channel();
    thread::spawn(|| edit(editor));
    let (identity, authority) = Identity::development(&[])?;
    let relay = Listener::all(([127, 0, 0, 1], 0))
        .identity(identity)
        .handler(Gate {
            proxies: Proxies::new().public_only(false),
            subscribers,
        })
        .start()?;
    let url = format!("https://{}", relay.local_addr());
    let builder = Client::builder(url).trust(Trust::pem(authority));

    let stranger = builder.clone().build()?;
    match stranger.tcp_blocking("news.internal:80") {
        Ok(_) => return Err("a stranger got in".into()),
        Err(error) => {
            let status = error.status().ok_or("the relay did not answer")?;
            let help = error.headers().and_then(|headers| headers.get("x-help"));
            let help = help.ok_or("the field is missing")?;
            println!("without a key: {status}, x-help: {}", help.to_str()?);
        }
    }

    let client = builder.header("x-key", "sesame").build()?;
    let mut news = String::new();
    (&client.tcp_blocking("news.internal:80")?).read_to_string(&mut news)?;
    print!("{news}");
    if news.lines().count() != 3 {
        return Err("the news are not complete".into());
    }

    let mut page = String::new();
    (&client.tcp_blocking(start_target()?)?).read_to_string(&mut page)?;
    println!("through the proxy: {page}");
    relay.stop_blocking();
    Ok(())
}

/// A target for the proxies: it says something to whoever connects.
fn start_target() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || -> io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.write_all(b"a page")
    });
    Ok(address)
}
