//! Replays the fuzz corpora on stable: every file of `fuzz/corpus/<target>/` goes through the body of its target.

use std::path::{Path, PathBuf};
use std::{fs, io};

use bauta::fuzzing;

/// The files of a folder below `fuzz/`, in a stable order.
fn files(folder: &str) -> io::Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(folder);
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files = entries.collect::<io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

#[expect(
    clippy::print_stdout,
    reason = "shown when the test fails: the last line names the input"
)]
fn replay(target: &str, body: fn(&[u8])) -> io::Result<()> {
    let files = files(&format!("corpus/{target}"))?;
    assert!(!files.is_empty(), "the corpus of {target} is empty");
    for file in files {
        println!("{}", file.display());
        body(&fs::read(&file)?);
    }
    Ok(())
}

#[test]
fn capsule() -> io::Result<()> {
    replay("capsule", fuzzing::capsule)
}

#[test]
fn template() -> io::Result<()> {
    replay("template", fuzzing::template)
}

#[test]
fn datagram() -> io::Result<()> {
    replay("datagram", fuzzing::datagram)
}

#[test]
fn proxy_status() -> io::Result<()> {
    replay("proxy_status", fuzzing::proxy_status)
}

#[test]
fn varint() -> io::Result<()> {
    replay("varint", fuzzing::varint)
}

#[test]
fn no_target_is_forgotten() -> io::Result<()> {
    let source = include_str!("corpus.rs");
    for target in files("fuzz_targets")? {
        let name = target.file_stem().unwrap().to_string_lossy().into_owned();
        let call = format!("replay(\"{name}\", fuzzing::{name})");
        assert!(source.contains(&call), "{name} is not replayed");
    }
    Ok(())
}
