//! Replays the fuzz corpora on stable: every file of `fuzz/corpus/<target>/` goes through the body of its target.
//!
//! The list of targets is here. Each has a body in `src/fuzzing.rs`, a file in `fuzz/fuzz_targets/`, a `[[bin]]` in
//! `fuzz/Cargo.toml` and a corpus, all of the same name.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::{fs, io};

use bauta::fuzzing;

macro_rules! targets {
    ($($name:ident)*) => {
        const TARGETS: &[&str] = &[$(stringify!($name)),*];

        $(#[test]
        fn $name() -> io::Result<()> {
            replay(stringify!($name), fuzzing::$name)
        })*
    };
}

targets! {
    capsule
    config
    datagram
    fields
    frame
    h1_client
    h1_server
    h3_ops
    ip_capsule
    ip_stream
    packet
    proxy_status
    qpack
    relay
    rule
    scope
    settings
    target
    template
    udp
    varint
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(name)
}

/// What is in a folder below `fuzz/`, in a stable order.
fn entries(name: &str) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder(name))?.map(|entry| entry.map(|entry| entry.path()));
    let mut entries = entries.collect::<io::Result<Vec<_>>>()?;
    entries.sort();
    Ok(entries)
}

#[expect(
    clippy::print_stdout,
    reason = "shown when the test fails: the last line names the input"
)]
fn replay(target: &str, body: fn(&[u8])) -> io::Result<()> {
    let files = entries(&format!("corpus/{target}"))?;
    assert!(!files.is_empty(), "the corpus of {target} is empty");
    for file in files {
        println!("{}", file.display());
        body(&fs::read(&file)?);
    }
    Ok(())
}

fn assert_all<T: AsRef<str> + Debug>(found: &[T], what: &str) {
    let found: Vec<&str> = found.iter().map(AsRef::as_ref).collect();
    assert_eq!(found, TARGETS, "{what} (left) are not the targets (right)");
}

#[test]
fn no_target_is_forgotten() -> io::Result<()> {
    let stem = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    let stems = |name| io::Result::Ok(entries(name)?.iter().map(stem).collect::<Vec<_>>());
    assert_all(&stems("corpus")?, "corpora");
    assert_all(&stems("fuzz_targets")?, "files of fuzz_targets");
    for target in TARGETS {
        let source = fs::read_to_string(folder(&format!("fuzz_targets/{target}.rs")))?;
        let call = format!("|data: &[u8]| bauta::fuzzing::{target}(data)");
        assert!(source.contains(&call), "{target}.rs calls something else");
    }

    let manifest = fs::read_to_string(folder("Cargo.toml"))?;
    let manifest: toml::Table = manifest.parse().expect("fuzz/Cargo.toml is TOML");
    let bins = manifest["bin"].as_array().unwrap();
    let names: Vec<_> = bins
        .iter()
        .map(|bin| bin["name"].as_str().unwrap())
        .collect();
    assert_all(&names, "[[bin]]s of Cargo.toml");
    for bin in bins {
        let path = format!("fuzz_targets/{}.rs", bin["name"].as_str().unwrap());
        assert_eq!(bin["path"].as_str(), Some(&*path));
    }
    Ok(())
}

/// A body without a target does nothing.
#[test]
fn no_body_is_forgotten() -> io::Result<()> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut bodies = Vec::new();
    for file in [
        "fuzzing.rs",
        "fuzzing/ip.rs",
        "fuzzing/ip_stream.rs",
        "fuzzing/relay.rs",
        "fuzzing/text.rs",
        "http/h1/fuzz_entry.rs",
        "http/h3/fuzz_entry.rs",
        "http/h3/fuzz_ops.rs",
    ] {
        let source = fs::read_to_string(src.join(file))?;
        let body = |line: &str| {
            let name = line
                .strip_prefix("pub fn ")?
                .strip_suffix("(data: &[u8]) {")?;
            Some(name.to_owned())
        };
        bodies.extend(source.lines().filter_map(body));
    }
    bodies.sort();
    assert_all(&bodies, "bodies");
    Ok(())
}
