//! Keeps `CONFORMANCE.md` in step with the requirements that tests cite.
//!
//! ```text
//!   tests/vectors/spec_ids.txt   id, level, duty, text ──┐
//!   // spec: 9298-3-a, map-1 to map-5    in src, tests ──┴─► CONFORMANCE.md
//! ```
//!
//! A citation stands above a test or inside of it. `BAUTA_BLESS=1` writes the file anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

const IDS: &str = include_str!("vectors/spec_ids.txt");
const HEAD: &str = "\
# Conformance

Which tests cover which requirement. Written by `BAUTA_BLESS=1 cargo test --test conformance`, out of the `spec:`
comments of the tests and the list in `tests/vectors/spec_ids.txt`.

Ids are RFC number, section, letter; `map` is the failure map of `src/error/`, `tp` the size arithmetic of datagrams.
Levels are those of the RFC; DEF follows from a definition, REC is this project's default where the RFC is silent.
Requirements marked [T] are duties of the QUIC library.

";

/// RFCs of which the list holds a part: what concerns HTTP/3.
const PARTLY_LISTED: [&str; 3] = ["8441", "8470", "9931"];

/// One line of the list.
struct Requirement {
    id: &'static str,
    level: &'static str,
    text: &'static str,
}

/// A document, and what it requires.
struct Document {
    title: &'static str,
    requirements: Vec<Requirement>,
}

/// The list, in its own order.
fn documents() -> Vec<Document> {
    let mut documents = Vec::new();
    for line in IDS.lines().filter(|line| !line.starts_with("# ")) {
        if let Some(title) = line.strip_prefix("## ") {
            documents.push(Document {
                title,
                requirements: Vec::new(),
            });
        } else if !line.is_empty() {
            let mut words = line.splitn(4, ' ');
            let mut word = || words.next().expect("id, level, duty and text");
            let (id, level, _, text) = (word(), word(), word(), word());
            let document = documents.last_mut().expect("a title first");
            document.requirements.push(Requirement { id, level, text });
        }
    }
    documents
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Rust and Python files below a folder, in order.
fn sources(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !hidden {
            found.extend(sources(&path)?);
        } else if path
            .extension()
            .is_some_and(|ext| ext == "rs" || ext == "py")
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// What a citation such as `// spec: 9298-3-a, map-1 to map-5; and prose` lists.
fn cited<'a>(line: &'a str, ids: &[&'a str]) -> Vec<&'a str> {
    let line = line.trim_start();
    let comment = ["// ", "/// ", "# "]
        .into_iter()
        .find_map(|start| line.strip_prefix(start));
    let Some(list) = comment.and_then(|comment| comment.strip_prefix("spec: ")) else {
        return Vec::new();
    };
    let place = |id: &str| ids.iter().position(|known| *known == id);
    let mut found: Vec<&str> = Vec::new();
    let mut is_range = false;
    for word in list.split([',', ' ']).filter(|word| !word.is_empty()) {
        let id = word.trim_end_matches(['.', ';', ':']);
        if id == "to" {
            is_range = true;
            continue;
        }
        if !is_id(id) {
            break;
        }
        if is_range && let Some(start) = found.pop().and_then(place) {
            let end = place(id).filter(|end| start < *end);
            let end = end.unwrap_or_else(|| panic!("{line}: a range that is none"));
            found.extend(&ids[start..=end]);
        } else {
            found.push(id);
        }
        is_range = false;
        if id != word {
            break;
        }
    }
    found
}

/// Shaped like an id: dashes between groups of lower-case letters, digits and dots, with a digit or one letter last.
fn is_id(word: &str) -> bool {
    let group = |group: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.';
        !group.is_empty() && group.chars().all(inner)
    };
    let last = word.rsplit('-').next().unwrap_or_default();
    let ends = last.len() == 1 || last.chars().all(|c| c.is_ascii_digit());
    word.contains('-') && ends && word.split('-').all(group)
}

/// The name of the function that a line starts, if it does.
fn function(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let modifiers = ["", "pub ", "pub(crate) ", "pub(super) ", "async "];
    let rest = modifiers.into_iter().find_map(|modifier| {
        let rest = line.strip_prefix(modifier)?;
        rest.strip_prefix("fn ")
            .or_else(|| rest.strip_prefix("def "))
    })?;
    let end = rest.find(|c: char| c != '_' && !c.is_ascii_alphanumeric())?;
    Some(&rest[..end])
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The line of the function that a citation on line `at` belongs to: the one below it, or else the one around it.
fn owner(lines: &[&str], at: usize) -> Option<usize> {
    // Attributes and decorators stand in between, over several lines at times.
    let apart = |line: &&str| {
        let text = line.trim_start();
        let marks = ["//", "#", "@", ")", "]"];
        let between = text.is_empty() || marks.iter().any(|mark| text.starts_with(mark));
        !between && indent(line) <= indent(lines[at])
    };
    let below = lines[at..]
        .iter()
        .position(apart)
        .map(|ahead| at + ahead)
        .filter(|line| function(lines[*line]).is_some());
    below.or_else(|| {
        let around = |line: &usize| indent(lines[*line]) < indent(lines[at]);
        let is_function = |line: &usize| function(lines[*line]).is_some();
        (0..at).rev().filter(is_function).find(around)
    })
}

/// Whether the function on that line is a test, or is below `tests/` and helps one.
fn is_test(path: &str, lines: &[&str], at: usize) -> bool {
    let attributes = lines[..at].iter().rev().take_while(|line| {
        let line = line.trim_start();
        line.starts_with('#') || line.starts_with("//")
    });
    let mut attributes = attributes.map(|line| line.trim());
    path.starts_with("tests/")
        || attributes.any(|line| line == "#[test]" || line.contains("::test"))
}

/// Every id that is cited, with the tests that do.
type Citations = BTreeMap<String, BTreeSet<String>>;

/// All citations, and those that no test makes.
fn citations(ids: &[&str]) -> io::Result<(Citations, Vec<String>)> {
    let mut citations = Citations::new();
    let mut stray = Vec::new();
    for folder in ["src", "tests"] {
        for file in sources(&repository().join(folder))? {
            let path = file.strip_prefix(repository()).expect("a file of ours");
            let path = path.to_str().expect("names in ASCII").replace('\\', "/");
            let text = fs::read_to_string(&file)?;
            let lines: Vec<&str> = text.lines().collect();
            for (at, line) in lines.iter().enumerate() {
                let found = cited(line, ids);
                if found.is_empty() {
                    continue;
                }
                match owner(&lines, at).filter(|owner| is_test(&path, &lines, *owner)) {
                    Some(owner) => {
                        let name = function(lines[owner]).expect("a function");
                        for id in found {
                            let tests = citations.entry(id.to_owned()).or_default();
                            tests.insert(format!("{path}:{name}"));
                        }
                    }
                    None => stray.push(format!("{path}:{}: {}", at + 1, line.trim())),
                }
            }
        }
    }
    Ok((citations, stray))
}

fn render(documents: &[Document], citations: &Citations) -> String {
    let mut out = String::from(HEAD);
    let is_claimed = |requirement: &&Requirement| citations.contains_key(requirement.id);
    out.push_str("| document | requirements | with a test |\n|---|--:|--:|\n");
    for Document {
        title,
        requirements,
    } in documents
    {
        let claimed = requirements.iter().filter(is_claimed).count();
        out += &format!("| {title} | {} | {claimed} |\n", requirements.len());
    }
    for Document {
        title,
        requirements,
    } in documents
    {
        out += &format!("\n## {title}\n\n");
        out.push_str("| id | level | requirement | tests |\n|---|---|---|---|\n");
        for Requirement { id, level, text } in requirements.iter().filter(is_claimed) {
            let tests: Vec<_> = citations[*id]
                .iter()
                .map(|test| format!("`{test}`"))
                .collect();
            let text = text.replace('|', "\\|");
            out += &format!("| {id} | {level} | {text} | {} |\n", tests.join(" "));
        }
        let (trusted, open): (Vec<_>, Vec<_>) = requirements
            .iter()
            .filter(|requirement| !is_claimed(requirement))
            .partition(|requirement| requirement.text.starts_with("[T]"));
        for (title, group) in [("Not claimed", open), ("Left to the QUIC library", trusted)] {
            if !group.is_empty() {
                out += &format!("\n### {title}\n\n");
            }
            for Requirement { id, level, text } in group {
                let text = text.trim_start_matches("[T] ");
                out += &format!("- {id} {level} {text}\n");
            }
        }
    }
    out
}

#[test]
fn the_table_is_up_to_date() -> io::Result<()> {
    let documents = documents();
    let requirements = documents.iter().flat_map(|document| &document.requirements);
    let ids: Vec<&str> = requirements.map(|requirement| requirement.id).collect();
    assert_eq!(
        ids.iter().collect::<BTreeSet<_>>().len(),
        ids.len(),
        "an id is listed twice"
    );
    let (citations, stray) = citations(&ids)?;
    assert_eq!(stray, [""; 0], "citations that belong to no test");

    // Other documents are cited as well; of those that are listed every id has to be known.
    let family = |id: &str| id.split('-').next().unwrap_or_default().to_owned();
    let mut families: BTreeSet<_> = ids.iter().map(|id| family(id)).collect();
    families.retain(|family| !PARTLY_LISTED.contains(&family.as_str()));
    let unknown: Vec<_> = citations
        .keys()
        .filter(|id| families.contains(&family(id)) && !ids.contains(&id.as_str()))
        .collect();
    assert_eq!(unknown, [""; 0], "ids that no document knows");

    let table = render(&documents, &citations);
    let file = repository().join("CONFORMANCE.md");
    if std::env::var_os("BAUTA_BLESS").is_some() {
        return fs::write(file, table);
    }
    let written = fs::read_to_string(file)?;
    let differs = table
        .lines()
        .zip(written.lines())
        .find(|(new, old)| new != old);
    assert_eq!(
        differs, None,
        "CONFORMANCE.md is out of date: BAUTA_BLESS=1 writes it anew"
    );
    assert_eq!(
        table, written,
        "CONFORMANCE.md is out of date: BAUTA_BLESS=1 writes it anew"
    );
    Ok(())
}

#[test]
fn citations_are_read() {
    let ids = ["9298-3-a", "map-1", "map-2", "map-3", "rc-curl-a"];
    assert_eq!(
        cited("  // spec: 9298-3-a, rc-curl-a", &ids),
        ["9298-3-a", "rc-curl-a"]
    );
    assert_eq!(
        cited("# spec: map-1 to map-3, 9298-3-a", &ids),
        ["map-1", "map-2", "map-3", "9298-3-a"]
    );
    assert_eq!(cited("/// spec: map-2; traps: h2o map-3", &ids), ["map-2"]);
    assert_eq!(cited("// spec: 9298-9-z. well-known", &ids), ["9298-9-z"]);
    assert_eq!(cited("// spec: RFC 6761, as in map-2", &ids), [""; 0]);
    assert_eq!(cited("let x = 1; // spec: map-2", &ids), [""; 0]);
    assert!(!is_id("well-known") && is_id("9000-10.1.2-a") && is_id("map-40"));
}

#[test]
fn owners_are_found() {
    let text = "\
// spec: above
#[test]
fn first() {
    let x = 1;
    // spec: inside
    assert!(x);
}
# spec: python
@fixture
async def second(x):
    # spec: python too
    pass
// spec: nobody
const X: u8 = 1;";
    let lines: Vec<&str> = text.lines().collect();
    let owner = |at| owner(&lines, at).and_then(|line| function(lines[line]));
    assert_eq!(
        [owner(0), owner(4), owner(7)],
        [Some("first"), Some("first"), Some("second")]
    );
    assert_eq!([owner(10), owner(12)], [Some("second"), None]);
    assert!(is_test("src/x.rs", &lines, 2) && !is_test("src/x.rs", &lines, 9));
}
