//! Parking and waking: timer, waker, datagrams, on each runtime of this machine.

use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use super::*;
use crate::net::runtime::{IoChoice, run};
use crate::net::{Network, TcpEvent, TcpRead};

#[test]
fn the_timer_is_set_only_to_fire_earlier() {
    let mut driver = driver();
    let start = now();
    driver.set_timer(None, start).unwrap();
    assert_eq!(driver.collect(Duration::ZERO).unwrap(), Woken::default());

    driver
        .set_timer(Some(start + Duration::from_millis(5)), start)
        .unwrap();
    driver.set_timer(Some(start + LONG * 10), start).unwrap();
    driver.set_timer(None, start).unwrap();
    assert!(driver.collect(LONG).unwrap().timer);
    assert!(now() >= start + Duration::from_millis(5));

    // It fired once, and is free for a later deadline; one in the past fires at once.
    assert_eq!(driver.collect(Duration::ZERO).unwrap(), Woken::default());
    driver.set_timer(Some(start + LONG * 10), start).unwrap();
    driver.set_timer(Some(start), now()).unwrap();
    assert!(driver.collect(LONG).unwrap().timer);
}

#[test]
fn wakers_coalesce_and_outlive_the_driver() {
    let mut driver = driver();
    let waker = driver.waker();
    let mailbox = Woken {
        timer: false,
        mailbox: true,
    };
    for _ in 0..3 {
        for _ in 0..1000 {
            waker.clone().wake();
        }
        assert_eq!(driver.collect(LONG).unwrap(), mailbox);
        assert_eq!(driver.collect(Duration::ZERO).unwrap(), Woken::default());
    }
    drop(driver);
    waker.wake();
}

/// The drivers that run on this machine: epoll always, io_uring unless it is forbidden.
fn runnable() -> impl Iterator<Item = IoChoice> {
    let ring = monoio::utils::detect_uring().then_some(IoChoice::Uring);
    [IoChoice::Auto, IoChoice::Epoll].into_iter().chain(ring)
}

/// Parks until `done`; every wake-up counts.
async fn park_until(driver: &mut Driver, mut done: impl FnMut(&mut Driver, Woken) -> bool) {
    let deadline = now() + LONG;
    loop {
        assert!(now() < deadline);
        driver.set_timer(Some(deadline), now()).unwrap();
        let woken = driver.ready().await.unwrap();
        if done(driver, woken) {
            return;
        }
    }
}

#[test]
fn a_parked_driver_is_woken_by_another_thread() {
    for io in runnable() {
        let (sender, receiver) = mpsc::channel::<(Waker, mpsc::Sender<u32>)>();
        let other = std::thread::spawn(move || {
            let (waker, mailbox) = receiver.recv().unwrap();
            for message in 0..100 {
                mailbox.send(message).unwrap();
                waker.wake();
            }
        });
        run(io, async move |_| {
            let mut driver = driver();
            let (mailbox, messages) = mpsc::channel();
            sender.send((driver.waker(), mailbox)).unwrap();
            let mut expected = 0;
            park_until(&mut driver, |_, woken| {
                if woken.mailbox {
                    while let Ok(message) = messages.try_recv() {
                        assert_eq!(message, expected);
                        expected += 1;
                    }
                }
                expected == 100
            })
            .await;
            assert!(driver.stats().wakeups > 0);
        })
        .unwrap();
        other.join().unwrap();
    }
}

#[test]
fn a_parked_driver_is_woken_by_its_timer() {
    for io in runnable() {
        run(io, async |_| {
            let mut driver = driver();
            for _ in 0..3 {
                let deadline = now() + Duration::from_millis(2);
                driver.set_timer(Some(deadline), now()).unwrap();
                while !driver.ready().await.unwrap().timer {}
                assert!(now() >= deadline);
            }
            assert!(driver.stats().wakeups >= 3);
        })
        .unwrap();
    }
}

#[test]
fn a_parked_driver_is_woken_by_datagrams() {
    for io in runnable() {
        let (sender, receiver) = mpsc::channel::<SocketAddr>();
        let echo = std::thread::spawn(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let peer = receiver.recv().unwrap();
            socket.connect(peer).unwrap();
            socket.set_read_timeout(Some(LONG)).unwrap();
            socket.send(b"begin").unwrap();
            let mut buffer = [0; 100];
            for _ in 0..100 {
                let length = socket.recv(&mut buffer).unwrap();
                socket.send(&buffer[..length]).unwrap();
            }
        });
        run(io, async move |_| {
            let mut driver = driver();
            let (id, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 7);
            sender.send(address).unwrap();
            let mut rounds = 0u8;
            park_until(&mut driver, |driver, _| {
                let mut peers = Vec::new();
                let _left = driver.receive(&mut |_, _, received| match received {
                    Received::Train(train) => peers.push(train.peer),
                    Received::Packets(_) => panic!("there is no TUN"),
                    Received::Error(error) => panic!("{error}"),
                });
                for peer in peers {
                    if rounds < 100 {
                        driver.send(id, &to(peer, &[rounds])).unwrap();
                    }
                    rounds += 1;
                }
                rounds == 101
            })
            .await;
        })
        .unwrap();
        echo.join().unwrap();
    }
}

#[test]
fn a_parked_driver_is_woken_by_connections() {
    for io in runnable() {
        let (sender, receiver) = mpsc::channel::<SocketAddr>();
        let peer = std::thread::spawn(move || {
            let mut peer = TcpStream::connect(receiver.recv().unwrap()).unwrap();
            peer.set_read_timeout(Some(LONG)).unwrap();
            for round in 0..100 {
                peer.write_all(&[round]).unwrap();
                let mut echo = [0];
                peer.read_exact(&mut echo).unwrap();
                assert_eq!(echo, [round]);
            }
        });
        run(io, async move |_| {
            let mut driver = driver();
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let listener = driver.add_tcp_listener(listener, 7).unwrap();
            sender
                .send(driver.tcp_local_addr(listener).unwrap())
                .unwrap();
            let mut ended = false;
            park_until(&mut driver, |driver, _| {
                while let Some((socket, _, event)) = driver.poll_tcp(now()) {
                    if matches!(event, TcpEvent::Accepted { .. }) {
                        continue;
                    }
                    let mut buffer = BytesMut::new();
                    while let TcpRead::Bytes(_) = driver.read(socket, &mut buffer, 100).unwrap() {}
                    ended |= buffer.is_empty();
                    driver.write(socket, &[IoSlice::new(&buffer)]).unwrap();
                }
                ended
            })
            .await;
        })
        .unwrap();
        peer.join().unwrap();
    }
}

#[test]
fn dropping_ready_loses_nothing() {
    for io in runnable() {
        run(io, async |_| {
            let mut driver = driver();
            let waker = driver.waker();
            {
                let mut ready = std::pin::pin!(driver.ready());
                let polled = std::future::poll_fn(|cx| {
                    std::task::Poll::Ready(ready.as_mut().poll(cx).is_pending())
                });
                assert!(polled.await, "nothing is ready");
            }
            waker.wake();
            park_until(&mut driver, |_, woken| woken.mailbox).await;
        })
        .unwrap();
    }
}
