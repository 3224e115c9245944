//! What a tunnel may reach: decided from the target before resolution, and from each address after it.
//!
//! ```text
//!  Target ──► check_target ──► resolve ──► check_address ──► the address to connect to
//!             names, ports,    (net)       own addresses, deny, allow,
//!             literals                     special-purpose ranges
//! ```
//!
//! **Invariants.** The address that was judged is the address that is connected to: there is no second lookup
//! (RFC 9298 section 7). A deny rule beats every allow rule. Nothing opens the relay's own listeners.
//!
//! Pure: no clock, no socket, no resolver. What a tunnel may reach does not depend on who is asking; `auth` judges
//! credentials before.

pub mod address;
pub mod auth;
pub mod resolve;
pub mod rules;

pub use address::{Special, is_public, unmap};
pub use resolve::{Resolution, ResolveError};
pub use rules::{Denied, Policy, Rule, RuleError, own_addresses};
