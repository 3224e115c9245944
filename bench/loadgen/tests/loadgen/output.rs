//! Files and comparisons.

use std::fs;

use crate::support::{SHORT, run, swept};

#[test]
fn percentiles_and_a_report_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name| folder.path().join(name).to_str().unwrap().to_owned();
    let (hgrm, html) = (path("a.hgrm"), path("a.html"));
    fs::write(&html, "an older and longer report".repeat(10_000)).unwrap();
    let load = ["--topology", "hop", "--workload", "echo", "--rate", "1000"];
    let files = ["--json", "--hgrm", &hgrm, "--html", &html];
    let result = run(load.iter().chain(&SHORT).chain(&files)).json();

    let count = result["rtt_us"]["count"].as_u64().unwrap();
    let hgrm = fs::read_to_string(hgrm).unwrap();
    let mut lines = hgrm.lines();
    assert!(
        lines.next().unwrap().trim_start().starts_with("Value"),
        "{hgrm}"
    );
    let total = hgrm
        .lines()
        .find_map(|line| line.split("Total count    =").nth(1));
    assert_eq!(
        total.unwrap().trim_end_matches(']').trim().parse(),
        Ok(count),
        "{hgrm}"
    );
    let last = lines.rfind(|line| !line.starts_with('#')).unwrap();
    let fields: Vec<_> = last.split_whitespace().collect();
    assert_eq!(fields[2].parse(), Ok(count), "{hgrm}");

    let html = fs::read_to_string(html).unwrap();
    assert!(html.starts_with("<!DOCTYPE html>") && html.trim_end().ends_with("</html>"));
    assert!(html.contains("<svg") && !html.contains("older and longer"));
    assert!(
        html.contains("--workload echo"),
        "the command is in the report"
    );
    for link in ["src=", "href=", "@import", "url("] {
        assert!(!html.contains(link), "a report is one file, without {link}");
    }
}

#[test]
fn a_report_of_a_sweep() {
    let folder = tempfile::tempdir().unwrap();
    let html = folder.path().join("sweep.html");
    let rates = ["--topology", "direct", "--from", "500", "--to", "500"];
    let html_option = ["--html", html.to_str().unwrap()];
    let table = swept(&[&rates[..], &html_option].concat());
    assert_eq!(table.code, Some(0), "{table:#?}");
    assert!(fs::read_to_string(html).unwrap().contains("<svg"));
}

#[test]
fn two_results_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for (name, workload) in [("up.json", "up"), ("down.json", "down")] {
        let load = [
            "--topology",
            "hop",
            "--workload",
            workload,
            "--rate",
            "500",
            "--json",
        ];
        let result = run(load.iter().chain(&SHORT));
        assert_eq!(result.code, Some(0), "{result:#?}");
        let path = folder.path().join(name);
        fs::write(&path, result.stdout).unwrap();
        paths.push(path.to_str().unwrap().to_owned());
    }
    let compare = |a: &str, b: &str| {
        let compared = run(["--compare", a, b]);
        assert_eq!(compared.code, Some(0), "{compared:#?}");
        assert_eq!(compared.stderr, "");
        compared.stdout
    };
    let same = compare(&paths[0], &paths[0]);
    assert!(same.contains("B/A") && same.contains("equal"), "{same}");
    assert!(
        !same.contains("Not the same load") && !same.contains("differs"),
        "{same}"
    );
    let different = compare(&paths[0], &paths[1]);
    assert!(
        different.contains("Not the same load (workload)"),
        "{different}"
    );
}
