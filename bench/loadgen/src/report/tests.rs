//! What the table and the page say about outcomes made by hand.

use super::*;

fn table_of(outcome: &Outcome) -> String {
    let mut out = Vec::new();
    table(outcome, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn context() -> Context {
    Context {
        command: "loadgen chain --rate 200000".to_owned(),
        machine: "2 cores, kernel 6.18".to_owned(),
        date: "2026-01-02 03:04 UTC".to_owned(),
    }
}

fn page(outcomes: &[Outcome], context: &Context) -> String {
    let mut out = Vec::new();
    html(outcomes, context, &mut out).unwrap();
    let page = String::from_utf8(out).unwrap();
    assert_well_formed(&page);
    for word in [
        "NaN", "inf,", "\"inf", "<script", "http://", "https://", "url(",
    ] {
        let page = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        assert!(!page.contains(word), "{word} in the page");
    }
    page
}

/// Elements of HTML that have no end.
const VOID: [&str; 1] = ["meta"];

/// Every element is closed in order, every attribute is quoted and stands once, every `&` starts an entity.
#[track_caller]
fn assert_well_formed(page: &str) {
    let body = page.strip_prefix("<!DOCTYPE html>").unwrap();
    // The style sheet is the only part with a syntax of its own.
    let (head, rest) = body.split_once("<style>").unwrap();
    let (style, rest) = rest.split_once("</style>").unwrap();
    assert!(!style.contains('<'), "{style}");
    assert_eq!(style.matches('{').count(), style.matches('}').count());

    let mut open: Vec<&str> = Vec::new();
    let whole = format!("{head}{rest}");
    let mut text = whole.as_str();
    while let Some(start) = text.find('<') {
        assert_text(&text[..start]);
        let end = start + text[start..].find('>').unwrap();
        let tag = &text[start + 1..end];
        text = &text[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
            continue;
        }
        let (tag, empty) = match tag.strip_suffix('/') {
            Some(tag) => (tag, true),
            None => (tag, false),
        };
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(name.chars().all(char::is_alphanumeric), "<{tag}>");
        assert_attributes(attributes);
        if !empty && !VOID.contains(&name) {
            open.push(name);
        }
    }
    assert_text(text);
    assert!(open.is_empty(), "{open:?}");
}

#[track_caller]
fn assert_attributes(mut attributes: &str) {
    let mut names = Vec::new();
    while !attributes.trim().is_empty() {
        let (name, rest) = attributes.trim_start().split_once("=\"").unwrap();
        assert!(
            name.chars().all(|c| c.is_alphanumeric() || c == '-') && !names.contains(&name),
            "{name}"
        );
        names.push(name);
        let (value, rest) = rest.split_once('"').unwrap();
        assert_text(value);
        attributes = rest;
    }
}

#[track_caller]
fn assert_text(text: &str) {
    assert!(!text.contains('>'), "{text}");
    for (start, _) in text.match_indices('&') {
        let end = text[start..]
            .find(';')
            .map(|end| &text[start..=start + end]);
        let entities = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;", "&apos;"];
        assert!(
            end.is_some_and(|entity| entities.contains(&entity)),
            "{text}"
        );
    }
}

#[test]
fn the_table_starts_with_two_numbers() {
    let text = table_of(&samples::chain());
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[..2],
        [
            "throughput  200,000 datagrams/s, 1.92 Gbit/s, loss 0.062 %",
            "latency     RTT p50 219 us, p99 1,322 us",
        ]
    );
    assert_eq!(
        lines[lines.len() - 1],
        "Saturated: core 0 (ingress). 200,000 datagrams/s is the limit of this relay under this load."
    );
}

#[test]
fn the_table_has_every_detail() {
    let text = table_of(&samples::chain());
    for line in [
        "topology   chain",
        "load on    1 tunnel, 1 connection",
        "offered    200,123 datagrams/s, 12 sent over 1 ms late",
        "delivered  200,000 datagrams/s (99.9 % of it)",
        "time, us    p50  p90    p99  p99.9     max   measured",
        "round trip  219  402  1,322  4,810  21,791     10,000",
        "one way     120  402  1,322  4,810  21,791  1,999,996",
        "ingress → egress  0.062 %",
        "party      CPU us/datagram  of a core   memory  segments/send  segments/receive",
        "ingress               3.43     88.7 %  31.2 MB           19.2              13.1",
        "generator             1.10     61.0 %        -              -                 -",
        "ingress   queue_full        1,234",
        "kernel    RcvbufErrors         77",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
    }
}

#[test]
fn only_a_relay_has_a_relays_limit() {
    let hop = table_of(&samples::hop());
    assert!(
        hop.contains("332,000 datagrams/s is a limit of the generator, not of the relay"),
        "{hop}"
    );
    let mut shared = samples::chain();
    shared.saturated = "core 1 (egress, target)".to_owned();
    shared.is_relay_limit = false;
    assert!(table_of(&shared).contains("may not be called a relay's limit"));
    let nothing = table_of(&samples::nothing());
    assert!(nothing.contains("latency     not measured"), "{nothing}");
    assert!(nothing.contains("Saturated: nobody."), "{nothing}");
    assert!(nothing.contains("interrupted after 0 s"), "{nothing}");
}

#[test]
fn echo_counts_round_trips() {
    let mut echo = samples::chain();
    echo.workload = "echo-sweep".to_owned();
    let text = table_of(&echo);
    assert!(
        text.starts_with("throughput  200,000 round trips/s"),
        "{text}"
    );
    assert!(text.contains("CPU us/round trip"), "{text}");
}

#[test]
fn load_beside_has_a_table() {
    let text = table_of(&samples::fairness());
    let row = "echo         99      1,980        1,980   0 %      219    1,322";
    assert!(text.lines().any(|line| line == row), "{text}");
}

#[test]
fn without_round_trips_the_way_counts() {
    let mut up = samples::chain();
    up.rtt_us.count = 0;
    assert_eq!(facts::latency(&up), "one-way p50 120 us, p99 1,322 us");
}

#[test]
fn a_sweep_has_a_row_per_point() {
    let text = table_of(&samples::sweep());
    for line in [
        "offered/s  delivered/s    loss  p50, us  p99, us  ingress CPU us  egress CPU us  saturated",
        "   50,000       50,000     0 %      212      847            3.43           2.25  none",
        "  400,000      250,000  37.5 %    3,600   14,400            3.43           2.25  ingress",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
    }
    assert!(!text.contains("  tunnels  "), "{text}");

    let mut many = samples::sweep();
    many.points[3].tunnels = 1_000;
    assert!(table_of(&many).contains("offered/s  tunnels  delivered/s"));
}

#[test]
fn relays_of_one_role_are_numbered() {
    let mut outcome = samples::chain();
    for relay in &mut outcome.relays {
        relay.role = "relay".to_owned();
    }
    assert_eq!(relay_names(&outcome), ["relay 1", "relay 2"]);
}

#[test]
fn a_page_has_facts_and_charts() {
    let page = page(&[samples::chain()], &context());
    for part in [
        "<code>loadgen chain --rate 200000</code>",
        "2 cores, kernel 6.18",
        "<b>throughput</b> 200,000 datagrams/s",
        "Delivered per second over time</figcaption>",
        "Latency distribution, us</figcaption>",
        "Latency over time, us</figcaption>",
        "CPU time per datagram, us</figcaption>",
        "<i class=\"c2\"></i>max",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(page.matches("<svg ").count(), 5);
    assert!(!page.contains("against load"));
}

#[test]
fn runs_are_overlaid() {
    let page = page(&[samples::chain(), samples::hop()], &context());
    assert!(page.contains("</i>2: hop up h3, 1,200 B, 1 tunnel</li>"));
    assert!(page.contains("Latency over time, p99, us</figcaption>"));
    assert_eq!(page.matches("<svg ").count(), 7);
}

#[test]
fn a_sweep_has_curves_against_the_load() {
    let page = page(&[samples::sweep()], &context());
    assert!(page.contains("Latency against load, us</figcaption>"));
    assert!(page.contains("Loss against load</figcaption>"));
    assert!(page.contains("CPU time per datagram against load, us</figcaption>"));
}

#[test]
fn names_cannot_become_markup() {
    let evil = "<script>alert('x')</script>\"&\u{1b}[2J";
    let mut outcome = samples::sweep();
    outcome.topology = evil.to_owned();
    outcome.saturated = evil.to_owned();
    outcome.relays[0].role = evil.to_owned();
    outcome.loss_per_hop[0].from = evil.to_owned();
    outcome.kernel_drops.insert(evil.to_owned(), 1);
    outcome.points[0] = outcome.clone();
    let context = Context {
        command: evil.to_owned(),
        machine: evil.to_owned(),
        date: evil.to_owned(),
    };
    let page = page(&[outcome.clone(), outcome.clone()], &context);
    assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)"));
    assert!(!page.contains('\u{1b}'));
    assert!(!table_of(&outcome).contains('\u{1b}'));
}

#[test]
fn nothing_to_draw_is_no_chart() {
    assert_eq!(page(&[], &context()).matches("<svg ").count(), 0);
    let nothing = page(&[samples::nothing()], &context());
    assert_eq!(nothing.matches("<svg ").count(), 0);
}

#[test]
fn odd_data_is_drawn() {
    let mut outcome = samples::sweep();
    outcome.points.truncate(1);
    outcome.series.truncate(1);
    outcome.series[0].delivered_pps = 0.0;
    outcome.series[0].p50_us = f64::NAN;
    outcome.series[0].p99_us = 0.0;
    outcome.series[0].max_us = f64::INFINITY;
    outcome.distribution.truncate(1);
    outcome.relays[0].cpu_us_per_datagram = f64::NAN;
    outcome.relays[1].cpu_us_per_datagram = 0.0;
    // Throughput, distribution, CPU, memory; latency, loss and CPU against load; no latency over time has a place.
    assert_eq!(page(&[outcome], &context()).matches("<svg ").count(), 7);
}

#[test]
fn long_runs_are_thinned_out() {
    let mut outcome = samples::chain();
    let one = outcome.series[0];
    outcome.series = (1..=86_400_u32)
        .map(|second| crate::outcome::Sample {
            at_s: second.into(),
            delivered_pps: if second == 40_000 { 0.0 } else { 1e6 },
            ..one
        })
        .collect();
    let page = page(&[outcome], &context());
    assert!(page.len() < 100_000, "{}", page.len());
}

#[test]
fn more_runs_than_colours() {
    let page = page(&vec![samples::chain(); 10], &context());
    assert!(page.contains("The charts show the first 8 runs."));
    assert!(page.contains("<td>10: chain"));
}
