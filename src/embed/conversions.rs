//! Small errors as the error of the public interface, and that as an error of streams: what `?` needs.

use std::io;

use super::{CredentialsError, Error, ErrorKind, SendError, ShutdownError, Side};

impl From<CredentialsError> for Error {
    fn from(error: CredentialsError) -> Self {
        Self::new(ErrorKind::Configuration, Side::Local).with_source(error)
    }
}

impl From<SendError> for Error {
    /// Only that there was no room goes by with time.
    fn from(error: SendError) -> Self {
        let (kind, goes_by) = match &error {
            SendError::TooLong { .. } | SendError::PacketTooLarge { .. } => {
                (ErrorKind::Limit, false)
            }
            SendError::NotAPacket(error) => return (*error).into(),
            SendError::Rule(error) => return error.clone().into(),
            SendError::NoRoom => (ErrorKind::Limit, true),
            SendError::Unassigned { .. } => (ErrorKind::Connect, false),
            SendError::Unsupported => (ErrorKind::Unsupported, false),
            SendError::Closed => (ErrorKind::Closed, false),
        };
        (Self::new(kind, Side::Local).retryable(goes_by)).with_source(error)
    }
}

impl From<ShutdownError> for Error {
    fn from(error: ShutdownError) -> Self {
        let (kind, goes_by) = match error {
            ShutdownError::NotReady => (ErrorKind::Limit, true),
            ShutdownError::AlreadyShut | ShutdownError::Closing => (ErrorKind::Closed, false),
        };
        (Self::new(kind, Side::Local).retryable(goes_by)).with_source(error)
    }
}

impl From<Error> for io::Error {
    /// The error becomes the inner one: [`io::Error::downcast`] gives it back.
    fn from(error: Error) -> Self {
        let kind = match (error.kind(), error.side()) {
            (ErrorKind::Aborted, _) => io::ErrorKind::ConnectionReset,
            (ErrorKind::Closed, Side::Local) => io::ErrorKind::NotConnected,
            (ErrorKind::Closed, Side::Downstream | Side::Upstream) => io::ErrorKind::BrokenPipe,
            (ErrorKind::Timeout, _) => io::ErrorKind::TimedOut,
            (ErrorKind::Refused | ErrorKind::Connect, _) => io::ErrorKind::ConnectionRefused,
            (ErrorKind::Configuration, _) => io::ErrorKind::InvalidInput,
            (ErrorKind::Unsupported, _) => io::ErrorKind::Unsupported,
            (
                ErrorKind::Tls
                | ErrorKind::Protocol
                | ErrorKind::Limit
                | ErrorKind::Io
                | ErrorKind::Internal,
                _,
            ) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted() -> Result<(), Error> {
        Err(SendError::NoRoom)?
    }

    fn as_io() -> io::Result<()> {
        Err(Error::from(SendError::Unsupported))?
    }

    #[test]
    fn a_question_mark_is_enough() {
        let error = converted().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert!(error.is_retryable());
        assert_eq!(format!("{error:#}"), "limit reached: there is no room");
        let error = as_io().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        let error: Error = error.downcast().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let error = Error::from(CredentialsError::Token);
        assert_eq!(error.kind(), ErrorKind::Configuration);
    }
}
