//! What all tunnels have in common, said once.

/// The methods that every tunnel has: of a type whose field `handle` is a [`Handle`](super::shared::Handle).
macro_rules! common {
    ($tunnel:ty) => {
        impl $tunnel {
            /// Which tunnel this is, among the [`Events`](crate::Events) of many.
            #[must_use]
            pub fn id(&self) -> TunnelId {
                self.handle.shared.id()
            }

            /// Waits until the relay has agreed; at once for a tunnel that was waited for.
            ///
            /// # Errors
            /// Why it did not.
            pub async fn opened(&self) -> Result<(), Error> {
                self.handle.opened().await
            }

            /// As [`opened`](Self::opened), on a plain thread.
            ///
            /// # Errors
            /// Why it did not.
            pub fn opened_blocking(&self) -> Result<(), Error> {
                self.handle.opened_blocking()
            }

            /// The next capsule of a type that bauta itself has no use for. Those that find 64 of them waiting are
            /// dropped and counted.
            ///
            /// # Errors
            /// Why the tunnel is over, once everything that came before was received.
            pub async fn recv_capsule(&self) -> Result<Capsule, Error> {
                let shared = &self.handle.shared;
                self.handle.taken(|| shared.recv_capsule()).await
            }

            /// As [`recv_capsule`](Self::recv_capsule), on a plain thread.
            ///
            /// # Errors
            /// As [`recv_capsule`](Self::recv_capsule).
            pub fn recv_capsule_blocking(&self) -> Result<Capsule, Error> {
                let shared = &self.handle.shared;
                self.handle.taken_blocking(|| shared.recv_capsule())
            }

            /// As [`recv_capsule`](Self::recv_capsule), at most for `timeout`; then there is `None`.
            ///
            /// # Errors
            /// As [`recv_capsule`](Self::recv_capsule).
            pub async fn recv_capsule_timeout(
                &self,
                timeout: std::time::Duration,
            ) -> Result<Option<Capsule>, Error> {
                let shared = &self.handle.shared;
                let received = (self.handle).taken_within(timeout, || shared.recv_capsule());
                received.await.transpose()
            }

            /// As [`recv_capsule_timeout`](Self::recv_capsule_timeout), on a plain thread.
            ///
            /// # Errors
            /// As [`recv_capsule`](Self::recv_capsule).
            pub fn recv_capsule_timeout_blocking(
                &self,
                timeout: std::time::Duration,
            ) -> Result<Option<Capsule>, Error> {
                let shared = &self.handle.shared;
                let received =
                    (self.handle).taken_within_blocking(timeout, || shared.recv_capsule());
                received.transpose()
            }

            /// The next capsule, if it is there already.
            ///
            /// # Errors
            /// As [`recv_capsule`](Self::recv_capsule).
            pub fn try_recv_capsule(&self) -> Result<Option<Capsule>, Error> {
                self.handle.shared.recv_capsule().transpose()
            }

            /// The tunnel at this moment.
            #[must_use]
            pub fn info(&self) -> Info {
                self.handle.shared.info()
            }

            /// As [`close`](Self::close), on a plain thread.
            pub fn close_blocking(&self) {
                self.handle.close_blocking();
            }

            /// Waits until the tunnel is over, and says why.
            pub async fn closed(&self) -> CloseReason {
                self.handle.closed().await
            }

            /// As [`closed`](Self::closed), on a plain thread.
            #[must_use]
            pub fn closed_blocking(&self) -> CloseReason {
                self.handle.closed_blocking()
            }

            /// As [`closed`](Self::closed), at most for `timeout`; then there is `None`.
            pub async fn closed_timeout(
                &self,
                timeout: std::time::Duration,
            ) -> Option<CloseReason> {
                let shared = &self.handle.shared;
                (self.handle)
                    .taken_within(timeout, || shared.close_reason())
                    .await
            }

            /// As [`closed_timeout`](Self::closed_timeout), on a plain thread.
            #[must_use]
            pub fn closed_timeout_blocking(
                &self,
                timeout: std::time::Duration,
            ) -> Option<CloseReason> {
                let shared = &self.handle.shared;
                self.handle
                    .taken_within_blocking(timeout, || shared.close_reason())
            }
        }
    };
}

/// The methods of tunnels whose data comes in pieces: what `recv` gives as `$item`, by `$take` of the shared queues.
macro_rules! receives {
    ($tunnel:ty, $item:ty, $take:ident) => {
        impl $tunnel {
            /// As [`recv`](Self::recv), at most for `timeout`; then there is `None`, also where everything went to
            /// [`Events`](crate::Events). The worker keeps the time: any executor will do.
            ///
            /// # Errors
            /// As [`recv`](Self::recv).
            pub async fn recv_timeout(&self, timeout: Duration) -> Result<Option<$item>, Error> {
                let shared = &self.handle.shared;
                let received = self.handle.taken_within(timeout, || shared.$take());
                received.await.transpose()
            }

            /// What [`recv`](Self::recv) would give, if it is there already.
            ///
            /// # Errors
            /// As [`recv`](Self::recv).
            pub fn try_recv(&self) -> Result<Option<$item>, Error> {
                self.handle.shared.$take().transpose()
            }

            /// As [`recv`](Self::recv), on a plain thread.
            ///
            /// # Errors
            /// As [`recv`](Self::recv).
            pub fn recv_blocking(&self) -> Result<$item, Error> {
                let shared = &self.handle.shared;
                self.handle.taken_blocking(|| shared.$take())
            }

            /// As [`recv_timeout`](Self::recv_timeout), on a plain thread.
            ///
            /// # Errors
            /// As [`recv`](Self::recv).
            pub fn recv_timeout_blocking(&self, timeout: Duration) -> Result<Option<$item>, Error> {
                let shared = &self.handle.shared;
                let received = self
                    .handle
                    .taken_within_blocking(timeout, || shared.$take());
                received.transpose()
            }

            /// Has the tunnel report to [`Events`](crate::Events), or be asked; what is queued stays and is received
            /// either way.
            pub fn set_mode(&self, mode: Mode) {
                self.handle.shared.set_mode(mode);
            }

            /// Sends a capsule on the tunnel's stream (RFC 9297 §3.2).
            ///
            /// # Errors
            /// [`ErrorKind::Limit`](crate::ErrorKind::Limit) for a value of more than 16 KiB, and while 64 capsules
            /// wait already; [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for the types that the tunnel
            /// itself uses; and when the tunnel is over, why.
            pub fn send_capsule(&self, kind: u64, value: impl Into<Bytes>) -> Result<(), Error> {
                self.handle.shared.send_capsule(Capsule::new(kind, value))
            }

            /// Closes the tunnel: what was sent goes out, what waits can still be received. Returns when that is done,
            /// within five seconds whatever happens.
            pub async fn close(&self) {
                self.handle.close().await;
            }
        }

        /// Ends after a tunnel that was closed in order; one that broke gives its error first.
        impl Stream for $tunnel {
            type Item = Result<$item, Error>;

            fn poll_next(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<Option<Self::Item>> {
                let Self {
                    handle, receiving, ..
                } = &mut *self;
                let shared = &handle.shared;
                receiving.poll_next(shared, context, || shared.$take())
            }
        }
    };
}

pub(super) use {common, receives};
