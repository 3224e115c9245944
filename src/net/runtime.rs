//! Starts monoio on the calling thread, on io_uring or on epoll, and says which and why.
//!
//! monoio's ring runs with COOP_TASKRUN (Linux 5.19) where the kernel has it: nobody has to interrupt a thread that
//! makes system calls all the time anyway. Neither DEFER_TASKRUN (monoio submits without reaping as long as a task
//! stays runnable, so a busy worker would never see a completion) nor SQPOLL (a second busy thread) is wanted.
//!
//! The future runs as a spawned task: monoio polls its main future without looking at descriptors and timers in
//! between, which a worker that is always busy would never let it do.

use std::future::Future;
use std::io;

use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder};

/// What the operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IoChoice {
    /// io_uring where the kernel lets us, else epoll.
    #[default]
    Auto,
    /// io_uring, or fail.
    Uring,
    /// epoll.
    Epoll,
}

/// Which driver runs, for the start-up log and the metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// `io_uring` or `epoll`.
    pub driver: &'static str,
    /// Why that one.
    pub reason: String,
}

/// Runs a future to its end on this thread. `make_future` is called inside the runtime, where sockets can be made.
///
/// Tasks that the future spawned and left behind are dropped, not awaited.
///
/// # Errors
/// When the driver cannot be started; with [`IoChoice::Uring`] the text says what the kernel has against io_uring.
pub fn run<T, F>(io: IoChoice, make_future: impl FnOnce(Selected) -> F) -> io::Result<T>
where
    T: 'static,
    F: Future<Output = T> + 'static,
{
    let (ring, selected) = select(io, build_ring)?;
    let task = async { monoio::spawn(make_future(selected)).await };
    match ring {
        Some(mut runtime) => Ok(runtime.block_on(task)),
        None => {
            let builder = RuntimeBuilder::<LegacyDriver>::new().enable_timer();
            Ok(builder.build()?.block_on(task))
        }
    }
}

/// Lets the other tasks of this thread run, and the runtime look at its descriptors. What a busy worker does between
/// turns.
///
/// monoio puts a task that wakes itself at the head of its queue, where it runs again at once and the others never:
/// here another task, which has to wait its turn, does the waking.
///
/// monoio's timers advance only when the thread parks: a task that never does anything but this stops them. Deadlines
/// that must hold under load belong to the worker ([`Driver::set_timer`](super::Driver::set_timer)).
pub async fn yield_now() {
    monoio::spawn(std::future::ready(())).await;
}

type Ring = Runtime<TimeDriver<IoUringDriver>>;

/// Decides between the drivers; `build` makes a ring, or says why it cannot.
fn select<R>(
    io: IoChoice,
    build: impl FnOnce() -> io::Result<R>,
) -> io::Result<(Option<R>, Selected)> {
    let selected = |driver, reason| Selected { driver, reason };
    match io {
        IoChoice::Epoll => Ok((None, selected("epoll", "configured".into()))),
        IoChoice::Uring => match build() {
            Ok(ring) => Ok((Some(ring), selected("io_uring", "configured".into()))),
            Err(error) => Err(io::Error::new(
                error.kind(),
                format!("io_uring is configured, but not usable: {error}"),
            )),
        },
        IoChoice::Auto => match build() {
            Ok(ring) => Ok((
                Some(ring),
                selected("io_uring", "the kernel supports it".into()),
            )),
            Err(error) => Ok((
                None,
                selected("epoll", format!("io_uring is not usable: {error}")),
            )),
        },
    }
}

fn build_ring() -> io::Result<Ring> {
    let mut cooperative = io_uring::IoUring::builder();
    cooperative.setup_coop_taskrun();
    let runtime = RuntimeBuilder::<IoUringDriver>::new()
        .uring_builder(cooperative)
        .enable_timer()
        .build()
        .or_else(|_| {
            let builder = RuntimeBuilder::<IoUringDriver>::new();
            builder.enable_timer().build()
        })?;
    if !monoio::utils::detect_uring() {
        let text =
            "an operation that monoio needs is missing, or MONOIO_FORCE_LEGACY_DRIVER is set";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    Ok(runtime)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::SocketAddr;
    use std::rc::Rc;
    use std::time::Duration;

    use monoio::net::udp::UdpSocket;

    use super::*;
    use crate::net::clock::now;

    /// The driver that each choice gets on this machine, which may forbid io_uring.
    fn runnable() -> Vec<IoChoice> {
        match run(IoChoice::Uring, async |_| ()) {
            Ok(()) => vec![IoChoice::Auto, IoChoice::Epoll, IoChoice::Uring],
            Err(error) => {
                assert!(
                    error.to_string().contains("io_uring is configured"),
                    "{error}"
                );
                vec![IoChoice::Auto, IoChoice::Epoll]
            }
        }
    }

    #[test]
    fn the_choice_is_reported() {
        for io in runnable() {
            let selected = run(io, async |selected| selected).unwrap();
            match io {
                IoChoice::Auto => assert!(!selected.reason.is_empty()),
                IoChoice::Uring => assert_eq!(selected.driver, "io_uring"),
                IoChoice::Epoll => assert_eq!(selected.driver, "epoll"),
            }
        }
    }

    #[test]
    fn a_refused_ring_falls_back_only_if_it_may() {
        let refuse = || Err::<(), _>(io::Error::from_raw_os_error(libc::EPERM));
        let (ring, selected) = select(IoChoice::Auto, refuse).unwrap();
        assert_eq!((ring, selected.driver), (None, "epoll"));
        assert!(selected.reason.contains("not permitted"), "{selected:?}");

        let error = select(IoChoice::Uring, refuse).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("not permitted"), "{error}");

        let never = || -> io::Result<()> { panic!("epoll needs no ring") };
        assert!(select(IoChoice::Epoll, never).unwrap().0.is_none());
    }

    #[test]
    fn a_busy_task_does_not_starve_descriptors() {
        for io in runnable() {
            let turns = run(io, async move |_| {
                let (done, busy) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0u64)));
                let echo = monoio::spawn({
                    let (done, busy) = (Rc::clone(&done), Rc::clone(&busy));
                    async move {
                        let address = SocketAddr::from(([127, 0, 0, 1], 0));
                        let receiver = UdpSocket::bind(address).unwrap();
                        let sender = UdpSocket::bind(address).unwrap();
                        let address = receiver.local_addr().unwrap();
                        for _ in 0..10 {
                            let receive = receiver.recv_from(vec![0; 16]);
                            sender.send_to(b"x".to_vec(), address).await.0.unwrap();
                            assert_eq!(receive.await.0.unwrap().0, 1);
                        }
                        done.set(true);
                        busy.get()
                    }
                });
                let deadline = now() + Duration::from_secs(10);
                while !done.get() {
                    assert!(
                        now() < deadline,
                        "the other task makes no progress on {io:?} after {}",
                        busy.get()
                    );
                    busy.set(busy.get() + 1);
                    yield_now().await;
                }
                echo.await
            });
            assert!(turns.unwrap() > 0, "{io:?}");
        }
    }
}
