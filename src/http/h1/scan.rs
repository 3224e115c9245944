//! Finds the end of a head, octet by octet, so that limits and bare line ends do not depend on how it was split.
//!
//! ```text
//!   request   ┌─[CRLF once]─┐
//!             └► Method ─SP─► Target ─SP─► Version ─CRLF─► Fields ─CRLF CRLF─► end
//!   response     Status ─────────────────────────CRLF────┘
//! ```
//!
//! Lines end in CRLF only: a bare LF may be accepted (RFC 9112 section 2.2), but who accepts it sees other lines than
//! one who does not. The parts of the lines are checked when the head is complete.

use super::{HeadFault, Limits, METHOD_BYTES_MAX};

const CR: u8 = b'\r';
const LF: u8 = b'\n';
const VERSION_LEN: usize = "HTTP/1.1".len();

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Where one empty line is tolerated (RFC 9112 section 2.2).
    Method,
    Target,
    Version,
    /// The start line of a response.
    Status,
    Fields,
}

/// How far a head has been seen.
#[derive(Debug)]
pub(super) struct HeadScanner {
    part: Part,
    /// Octets seen, over all lines.
    seen: usize,
    /// Octets of the part, or of the line among fields.
    len: usize,
    is_after_cr: bool,
    has_empty_line: bool,
    head_bytes_max: usize,
    target_bytes_max: usize,
}

impl HeadScanner {
    pub(super) fn request(limits: &Limits) -> Self {
        Self::new(Part::Method, limits)
    }

    pub(super) fn response(limits: &Limits) -> Self {
        Self::new(Part::Status, limits)
    }

    fn new(part: Part, limits: &Limits) -> Self {
        Self {
            part,
            seen: 0,
            len: 0,
            is_after_cr: false,
            has_empty_line: false,
            head_bytes_max: limits.head_bytes_max,
            target_bytes_max: limits.target_bytes_max,
        }
    }

    /// Looks at what is new in `buffer`, which starts where the head starts: its length once it is complete.
    pub(super) fn scan(&mut self, buffer: &[u8]) -> Result<Option<usize>, HeadFault> {
        for &octet in buffer.get(self.seen..).unwrap_or_default() {
            if self.seen == self.head_bytes_max {
                break;
            }
            self.seen += 1;
            match (self.is_after_cr, octet) {
                (true, LF) => {
                    self.is_after_cr = false;
                    if self.end_line()? {
                        return Ok(Some(self.seen));
                    }
                }
                (true, _) => return Err(HeadFault::Octet { octet: CR }),
                (false, CR) => self.is_after_cr = true,
                (false, b'\t') => self.text(octet)?,
                (false, 0..0x20 | 0x7f) => return Err(HeadFault::Octet { octet }),
                (false, _) => self.text(octet)?,
            }
        }
        if self.seen == self.head_bytes_max {
            return Err(HeadFault::TooLong {
                max: self.head_bytes_max,
            });
        }
        Ok(None)
    }

    /// An octet inside a line.
    fn text(&mut self, octet: u8) -> Result<(), HeadFault> {
        let next = match self.part {
            Part::Method => Some(Part::Target),
            Part::Target => Some(Part::Version),
            Part::Version | Part::Status | Part::Fields => None,
        };
        if let Some(next) = next.filter(|_| octet == b' ') {
            self.part = next;
            self.len = 0;
            return Ok(());
        }
        self.len += 1;
        match self.part {
            Part::Method if self.len > METHOD_BYTES_MAX => Err(HeadFault::MethodTooLong),
            Part::Target if self.len > self.target_bytes_max => Err(HeadFault::TargetTooLong {
                max: self.target_bytes_max,
            }),
            Part::Version if self.len > VERSION_LEN => Err(HeadFault::StartLine),
            Part::Method | Part::Target | Part::Version | Part::Status | Part::Fields => Ok(()),
        }
    }

    /// The end of a line; true for the end of the head.
    fn end_line(&mut self) -> Result<bool, HeadFault> {
        let is_empty = std::mem::take(&mut self.len) == 0;
        match self.part {
            Part::Fields => return Ok(is_empty),
            Part::Method if is_empty && !self.has_empty_line => self.has_empty_line = true,
            Part::Version | Part::Status if !is_empty => self.part = Part::Fields,
            Part::Method | Part::Target | Part::Version | Part::Status => {
                return Err(HeadFault::StartLine);
            }
        }
        Ok(false)
    }
}
