//! Tunnels under tokio: a TCP tunnel as `AsyncRead` and `AsyncWrite`, a UDP tunnel in a select loop, and timeouts.
//!
//! ```console
//! $ cargo run --example tokio_client
//! ```
//!
//! A relay and the targets are in this process, on loopback. Tunnels live on a worker thread of the library, whatever
//! the runtime: one thread is enough for it here.

#![expect(clippy::print_stdout, reason = "an example prints what it does")]

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bauta::{Client, Identity, Listener, Proxies, Trust};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{interval, sleep, timeout};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (identity, authority) = Identity::development(&[])?;
    let relay = Listener::all(([127, 0, 0, 1], 0))
        .identity(identity)
        .handler(Proxies::new().public_only(false))
        .start()?;
    let client = Client::builder(format!("https://{}", relay.local_addr()))
        .trust(Trust::pem(authority))
        .open_timeout(Duration::from_secs(10))
        .build()?;

    let web = start_web_server().await?;
    timeout(Duration::from_secs(10), get(&client, web)).await??;
    timeout(Duration::from_secs(10), forward(&client, web)).await??;
    let counter = start_counter().await?;
    count(&client, counter).await?;
    relay.stop().await;
    Ok(())
}

/// HTTP/1.1 through a tunnel: it is a stream like that of a `TcpStream`.
async fn get(client: &Client, web: SocketAddr) -> Result<()> {
    let mut tunnel = client.tcp(web).await?;
    tunnel.write_all(REQUEST).await?;
    let mut response = String::new();
    tunnel.read_to_string(&mut response).await?;
    let status = response.lines().next().ok_or("an empty response")?;
    println!("GET through a tunnel: {status}");
    Ok(())
}

/// A local port that leads to a target. A server would accept in a loop, and spawn.
async fn forward(client: &Client, web: SocketAddr) -> Result<()> {
    let port = TcpListener::bind("127.0.0.1:0").await?;
    let mut user = TcpStream::connect(port.local_addr()?).await?;

    let (mut socket, _) = port.accept().await?;
    let mut tunnel = client.tcp(web).await?;
    let forwarding =
        tokio::spawn(async move { copy_bidirectional(&mut socket, &mut tunnel).await });

    user.write_all(REQUEST).await?;
    user.shutdown().await?;
    let mut response = Vec::new();
    user.read_to_end(&mut response).await?;
    let (sent, received) = forwarding.await??;
    println!("GET through a forwarded port: {sent} bytes there, {received} back");
    Ok(())
}

/// Sends at intervals and receives meanwhile, until five answers are there or the time is over.
async fn count(client: &Client, counter: SocketAddr) -> Result<()> {
    let tunnel = client.udp(counter).await?;
    let mut ticks = interval(Duration::from_millis(20));
    let mut answers = Vec::new();
    let deadline = sleep(Duration::from_secs(10));
    tokio::pin!(deadline);
    while answers.len() < 5 {
        tokio::select! {
            _ = ticks.tick() => tunnel.send("tick")?,
            // Cancel-safe: what another branch interrupts has taken nothing.
            datagram = tunnel.recv() => answers.push(datagram?.payload),
            () = &mut deadline => return Err("the counter is too slow".into()),
        }
    }
    let answers: Vec<_> = answers
        .iter()
        .map(|it| String::from_utf8_lossy(it))
        .collect();
    println!("datagrams: {}", answers.join(", "));
    // Nobody sends any more, so the next wait ends in time with nothing.
    while tunnel
        .recv_timeout(Duration::from_millis(50))
        .await?
        .is_some()
    {}
    tunnel.close().await;
    println!("tunnel: {}", tunnel.closed().await);
    Ok(())
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: target.example\r\nconnection: close\r\n\r\n";

async fn start_web_server() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            if let Err(error) = serve(&mut stream).await {
                println!("web server: {error}");
            }
        }
    });
    Ok(address)
}

async fn serve(stream: &mut TcpStream) -> io::Result<()> {
    stream.read_exact(&mut [0; REQUEST.len()]).await?;
    let response = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
    stream.write_all(response).await
}

/// A target that answers every datagram with a number.
async fn start_counter() -> io::Result<SocketAddr> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let address = socket.local_addr()?;
    tokio::spawn(async move {
        let mut number = 0;
        while let Ok((_, sender)) = socket.recv_from(&mut [0; 16]).await {
            number += 1;
            if socket
                .send_to(number.to_string().as_bytes(), sender)
                .await
                .is_err()
            {
                break;
            }
        }
    });
    Ok(address)
}
