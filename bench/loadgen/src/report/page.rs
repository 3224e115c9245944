//! The HTML report: one file that needs no other, no script and no network.

use std::io::{self, Write};

use super::Context;
use super::chart::{self, SERIES_MAX};
use super::charts::{self, Chart};
use super::facts;
use super::grid::escape;
use crate::outcome::Outcome;

const STYLE: &str = include_str!("page.css");

/// Writes a page about `outcomes`: their facts first, then charts in which the runs are overlaid.
///
/// # Errors
///
/// What writing to `out` fails with.
pub(crate) fn html(
    outcomes: &[Outcome],
    context: &Context,
    out: &mut impl Write,
) -> io::Result<()> {
    writeln!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>loadgen report</title>\n<style>\n{STYLE}{}</style>\n</head>\n<body>",
        color_style()
    )?;
    writeln!(out, "<h1>loadgen report</h1>")?;
    for line in [&context.date, &context.machine] {
        writeln!(out, "<p class=\"about\">{}</p>", escape(line))?;
    }
    let command = escape(&context.command);
    writeln!(out, "<p class=\"about\"><code>{command}</code></p>")?;

    if outcomes.is_empty() {
        writeln!(out, "<p>No run was measured.</p>")?;
    }
    if outcomes.len() > 1 {
        writeln!(out, "<h2>Runs</h2>")?;
        facts::runs(outcomes).write_html(out)?;
    }
    for (name, outcome) in charts::names(outcomes).iter().zip(outcomes) {
        run(name, outcome, outcomes.len() == 1, out)?;
    }
    writeln!(out, "<div class=\"charts\">")?;
    for chart in charts::of(outcomes) {
        figure(&chart, out)?;
    }
    writeln!(out, "</div>")?;
    if outcomes.len() > SERIES_MAX {
        writeln!(
            out,
            "<p class=\"about\">The charts show the first {SERIES_MAX} runs.</p>"
        )?;
    }
    writeln!(out, "</body>\n</html>")
}

/// The facts of one run, folded away where there are several.
fn run(name: &str, outcome: &Outcome, open: bool, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "<section>\n<h2>{}</h2>", escape(name))?;
    for (name, value) in [
        ("throughput", facts::throughput(outcome)),
        ("latency", facts::latency(outcome)),
    ] {
        let value = escape(&value);
        writeln!(out, "<p class=\"headline\"><b>{name}</b> {value}</p>")?;
    }
    let verdict = escape(&facts::verdict(outcome));
    writeln!(out, "<p class=\"verdict\">{verdict}</p>")?;
    let open = if open { " open=\"open\"" } else { "" };
    writeln!(out, "<details{open}><summary>Details</summary>")?;
    writeln!(out, "<div class=\"grids\">")?;
    for grid in facts::grids(outcome) {
        grid.write_html(out)?;
    }
    writeln!(out, "</div></details>\n</section>")
}

/// A chart with caption and legend; nothing where there is nothing to draw.
fn figure(chart: &Chart, out: &mut impl Write) -> io::Result<()> {
    let Some(svg) = chart.svg()? else {
        return Ok(());
    };
    let title = escape(chart.title());
    writeln!(out, "<figure>\n<figcaption>{title}</figcaption>")?;
    let legend = chart.legend();
    if legend.len() > 1 {
        writeln!(out, "<ul class=\"legend\">")?;
        for (index, name) in legend {
            let name = escape(name);
            let color = index % SERIES_MAX;
            writeln!(out, "<li><i class=\"c{color}\"></i>{name}</li>")?;
        }
        writeln!(out, "</ul>")?;
    }
    writeln!(out, "{svg}</figure>")
}

/// Colours of legends, and for a dark page those of the pictures, which carry the ones of a light page.
fn color_style() -> String {
    let mut style = String::new();
    let mut dark = String::new();
    for (index, (light, replacement)) in chart::dark_colors().enumerate() {
        if index < SERIES_MAX {
            style += &format!(".c{index} {{ background: {light}; }}\n");
            dark += &format!(".c{index} {{ background: {replacement}; }}\n");
        }
        dark += &format!("svg [fill=\"{light}\"] {{ fill: {replacement}; }}\n");
        dark += &format!("svg [stroke=\"{light}\"] {{ stroke: {replacement}; }}\n");
    }
    style + "@media (prefers-color-scheme: dark) {\n" + &dark + "}\n"
}
