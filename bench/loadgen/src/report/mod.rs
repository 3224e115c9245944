//! What people see of an [`Outcome`]: a table in the terminal, a page with charts.
//!
//! ```text
//! Outcome ─► facts (sentences and grids) ─┬─► table   lines of a terminal
//!                                         └─► page    HTML that needs nothing else ◄─ charts (SVG)
//! ```
//!
//! Both show the same facts in the same order: throughput and latency, what ran, what each party did, and what the
//! figure may be called. Nothing here measures or judges; who was saturated is decided where the run is.

mod axis;
mod chart;
mod charts;
mod facts;
pub(crate) mod grid;
pub(crate) mod number;
mod page;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

pub(crate) use facts::relay_names;
pub(crate) use page::html;

use std::io::{self, Write};

use crate::outcome::Outcome;

/// What a page says about the runs besides their figures. Any text; it is escaped.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// The command line that repeats the runs.
    pub(crate) command: String,
    /// Processor, cores, kernel: whatever tells this machine from another.
    pub(crate) machine: String,
    /// When the runs were made.
    pub(crate) date: String,
}

/// Writes the readable result. The first two lines are the two numbers that anybody can repeat: throughput and latency.
///
/// # Errors
///
/// What writing to `out` fails with.
pub(crate) fn table(outcome: &Outcome, out: &mut impl Write) -> io::Result<()> {
    for (name, value) in [
        ("throughput", facts::throughput(outcome)),
        ("latency", facts::latency(outcome)),
    ] {
        writeln!(out, "{name:<10}  {value}")?;
    }
    for grid in facts::grids(outcome) {
        writeln!(out)?;
        grid.write_text(out)?;
    }
    writeln!(out, "\n{}", grid::printable(&facts::verdict(outcome)))
}
