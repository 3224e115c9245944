//! Style as a test: what a reviewer should never have to say.
//!
//! Layers import one way, `unsafe` lives in one file, files stay short, and words that mean "not finished" do not get
//! in. The rules are data at the top; a rule that stands in the way of something good is changed here, in the open.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// One folder of `src`, and what else of this crate it may import. A path such as `http::request` opens that module
/// only.
struct Layer {
    folder: &'static str,
    may_import: &'static [&'static str],
    /// Whether the layer has no socket, no clock and no executor.
    sans_io: bool,
}

const fn layer(folder: &'static str, may_import: &'static [&'static str], sans_io: bool) -> Layer {
    Layer {
        folder,
        may_import,
        sans_io,
    }
}

/// From the bytes up. `error` is the table of refusals; `policy::resolve` holds the values that a lookup answers with,
/// which `net` makes and `client` carries.
const LAYERS: &[Layer] = &[
    layer("counters", &[], true),
    layer("wire", &[], true),
    layer("error", &["wire"], true),
    layer("config", &["wire"], true),
    layer("http", &["wire"], true),
    layer("tunnel", &["wire", "http::request"], true),
    layer("policy", &["wire", "http::request", "error"], true),
    layer(
        "handler",
        &["tunnel", "policy", "wire", "http::request", "error"],
        true,
    ),
    layer(
        "net",
        &["config", "policy::resolve", "counters", "wire::ip"],
        false,
    ),
    layer(
        "transport",
        &["net", "http", "wire", "config", "counters"],
        false,
    ),
    layer(
        "client",
        &[
            "transport",
            "net",
            "http",
            "tunnel",
            "policy::resolve",
            "wire",
            "config",
            "error",
        ],
        false,
    ),
    layer(
        "server",
        &[
            "transport",
            "net",
            "http",
            "tunnel",
            "policy",
            "handler",
            "wire",
            "config",
            "error",
        ],
        false,
    ),
];

/// Modules above all layers: they may import everything, and no layer imports them.
const ABOVE: &[&str] = &[
    "lib", "main", "cli", "guide", "program", "embed", "worker", "fuzzing",
];

/// What a layer without I/O does not name.
const IO: &[&str] = &[
    "monoio",
    "tokio",
    "socket2",
    "libc",
    "hickory_resolver",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "Instant::now",
    "SystemTime::now",
    "thread::sleep",
];

/// The one place for unsafe code.
const UNSAFE: &str = "src/net/sys.rs";
/// Words that are refused everywhere.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "dbg!"];
/// Words that are refused outside the programs.
const PRINTING: &[&str] = &["println!", "print!"];
const PROGRAMS: &[&str] = &["src/main.rs", "src/cli.rs"];
/// Directories of somebody's machine.
const MACHINE_PATHS: &[&str] = &["/home/", "/root/", "/Users/", "/work/", "/workspace/"];

/// Lines of a file, its tests not counted.
const FILE_LINES_MAX: usize = 800;
/// Characters of a line.
const LINE_CHARS_MAX: usize = 120;

/// Where the requirement ids are written down, beside the checkout: checklists and the tables behind them.
const SPECS: &str = "../shared/specs";

struct File {
    /// Relative to the repository, with slashes.
    path: String,
    text: String,
}

impl File {
    /// Lines with their numbers, comments cut off.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, strip_comment(line)))
    }

    /// The module directly under `src` that the file belongs to.
    fn top_module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        Some(inside.split('/').next()?.trim_end_matches(".rs"))
    }

    /// A file of nothing but tests.
    fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.ends_with("/tests.rs")
            || self.path.contains("/tests/")
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `folders` whose name ends in one of `extensions`. This file is not among them: it is made of what
/// it forbids.
fn files(folders: &[&str], extensions: &[&str]) -> Vec<File> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = folders
        .iter()
        .map(|folder| repository().join(folder))
        .collect();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.')
                    && !["target", "corpus", "artifacts"].contains(&name.as_str())
                {
                    folders.push(path);
                }
            } else if extensions.iter().any(|extension| name.ends_with(extension)) {
                let relative = path
                    .strip_prefix(repository())
                    .unwrap()
                    .to_string_lossy()
                    .replace('\\', "/");
                if relative != "tests/tidy.rs" {
                    found.push(File {
                        path: relative,
                        text: fs::read_to_string(&path).unwrap(),
                    });
                }
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn rust_files() -> Vec<File> {
    files(&["src", "tests", "bench", "fuzz", "examples"], &[".rs"])
}

fn sources() -> Vec<File> {
    files(&["src"], &[".rs"])
}

#[track_caller]
fn assert_none(rule: &str, violations: &[String]) {
    assert!(
        violations.is_empty(),
        "{rule}:\n  {}",
        violations.join("\n  ")
    );
}

/// The line without its `//` comment. Strings over several lines are taken for code, which is good enough here.
fn strip_comment(line: &str) -> &str {
    let bytes = line.as_bytes();
    let (mut in_string, mut index) = (false, 0);
    while index < bytes.len() {
        match bytes[index] {
            b'\\' if in_string => index += 1,
            b'\'' if !in_string && bytes.get(index + 1) == Some(&b'"') => index += 2,
            b'"' => in_string = !in_string,
            b'/' if !in_string && bytes.get(index + 1) == Some(&b'/') => return &line[..index],
            _ => {}
        }
        index += 1;
    }
    line
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `word` stands in `code`, not as the part of a longer name.
fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(start, _)| {
        let before = code[..start].chars().next_back();
        let after = code[start + word.len()..].chars().next();
        let longer =
            before.is_some_and(is_word) || (after.is_some_and(is_word) && word.ends_with(is_word));
        !longer
    })
}

/// All paths below `crate::` that `text` names, groups in braces written out.
fn imports(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .map(strip_comment)
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut paths = Vec::new();
    for (start, word) in code.match_indices("crate::") {
        if !code[..start].chars().next_back().is_some_and(is_word) {
            expand("", &code[start + word.len()..], &mut paths);
        }
    }
    paths
}

/// Reads one use tree; returns what follows it.
fn expand<'a>(prefix: &str, tree: &'a str, paths: &mut Vec<String>) -> &'a str {
    let tree = tree.trim_start();
    if let Some(mut rest) = tree.strip_prefix('{') {
        loop {
            rest = rest.trim_start().trim_start_matches(',').trim_start();
            match rest.strip_prefix('}') {
                Some(after) => return after,
                None if rest.is_empty() => return rest,
                None => {
                    let after = expand(prefix, rest, paths);
                    // Something that is no use tree, such as `as name`: skip to where the next one starts.
                    rest = &after[after.find([',', '}']).unwrap_or(after.len())..];
                }
            }
        }
    }
    let end = tree.find(|c| !is_word(c) && c != '*').unwrap_or(tree.len());
    let path = if prefix.is_empty() {
        tree[..end].to_owned()
    } else {
        format!("{prefix}::{}", &tree[..end])
    };
    match tree[end..].strip_prefix("::") {
        Some(rest) => expand(&path, rest, paths),
        None => {
            paths.push(path);
            &tree[end..]
        }
    }
}

fn inside(path: &str, module: &str) -> bool {
    path.strip_prefix(module)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[test]
fn imports_point_one_way() {
    let mut wrong = Vec::new();
    for file in sources() {
        let module = file.top_module().unwrap();
        if ABOVE.contains(&module) {
            continue;
        }
        let Some(layer) = LAYERS.iter().find(|layer| layer.folder == module) else {
            wrong.push(format!(
                "{}: a module that the table of layers does not know",
                file.path
            ));
            continue;
        };
        for path in imports(&file.text) {
            let own = inside(&path, module);
            if !own
                && !layer
                    .may_import
                    .iter()
                    .any(|allowed| inside(&path, allowed))
            {
                wrong.push(format!(
                    "{}: {module} must not import crate::{path}",
                    file.path
                ));
            }
        }
    }
    assert_none("imports against the order of the layers", &wrong);
}

#[test]
fn sans_io_layers_do_no_io() {
    let mut wrong = Vec::new();
    for file in sources() {
        let sans_io = LAYERS
            .iter()
            .any(|layer| layer.sans_io && Some(layer.folder) == file.top_module());
        // Tests may start their virtual time at the real one.
        for (number, code) in file.code().filter(|_| sans_io && !file.is_test()) {
            for word in IO.iter().filter(|word| has_word(code, word)) {
                wrong.push(format!("{}:{number}: {word}", file.path));
            }
        }
    }
    assert_none(
        "sockets, clocks or executors in a layer without I/O",
        &wrong,
    );
}

#[test]
fn files_are_short() {
    let mut long = Vec::new();
    for file in sources().iter().filter(|file| !file.is_test()) {
        let lines = file
            .text
            .lines()
            .take_while(|line| *line != "#[cfg(test)]" && *line != "mod tests {")
            .count();
        if lines > FILE_LINES_MAX {
            long.push(format!("{}: {lines} lines", file.path));
        }
    }
    assert_none("files that want to become two", &long);
}

#[test]
fn unsafe_is_in_one_file() {
    let mut wrong = Vec::new();
    for file in rust_files().iter().filter(|file| file.path != UNSAFE) {
        for (number, code) in file.code() {
            if [
                "unsafe {",
                "unsafe fn",
                "unsafe impl",
                "unsafe extern",
                "unsafe trait",
            ]
            .iter()
            .any(|w| has_word(code, w))
            {
                wrong.push(format!("{}:{number}", file.path));
            }
        }
    }
    assert_none(&format!("unsafe code outside {UNSAFE}"), &wrong);
}

#[test]
fn nothing_is_left_unfinished() {
    let mut wrong = Vec::new();
    for file in rust_files() {
        let library = file.path.starts_with("src/")
            && !PROGRAMS
                .iter()
                .any(|program| file.path.starts_with(program));
        for (number, code) in file.code() {
            let printing = PRINTING.iter().filter(|_| library);
            for word in UNFINISHED
                .iter()
                .chain(printing)
                .filter(|word| has_word(code, word))
            {
                wrong.push(format!("{}:{number}: {word}", file.path));
            }
            if code.trim_start().starts_with("#[ignore") {
                wrong.push(format!("{}:{number}: a test that nobody runs", file.path));
            }
        }
    }
    assert_none("words that do not get in", &wrong);
}

#[test]
fn no_paths_of_a_machine() {
    let mut wrong = Vec::new();
    let kinds = [
        ".rs", ".md", ".toml", ".sh", ".py", ".yml", ".yaml", ".service", ".conf",
    ];
    let mut all = files(
        &["src", "tests", "bench", "fuzz", "examples", "deploy"],
        &kinds,
    );
    all.extend(top_level_files(&kinds));
    for file in &all {
        for (index, line) in file.text.lines().enumerate() {
            for path in MACHINE_PATHS {
                let found = line.match_indices(path).any(|(start, _)| {
                    // Behind a name it is a part of a URL or of another path.
                    !line[..start]
                        .chars()
                        .next_back()
                        .is_some_and(|c| is_word(c) || ".-}*".contains(c))
                });
                if found {
                    wrong.push(format!("{}:{}: {path}", file.path, index + 1));
                }
            }
        }
    }
    assert_none("paths of somebody's machine", &wrong);
}

fn top_level_files(extensions: &[&str]) -> Vec<File> {
    let entries = fs::read_dir(repository())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let wanted = entries.filter(|path| path.is_file()).filter_map(|path| {
        let name = path.file_name()?.to_str()?.to_owned();
        extensions
            .iter()
            .any(|extension| name.ends_with(extension))
            .then_some((path, name))
    });
    wanted
        .map(|(path, name)| File {
            text: fs::read_to_string(path).unwrap(),
            path: name,
        })
        .collect()
}

#[test]
fn every_file_says_what_it_is() {
    let silent: Vec<String> = rust_files()
        .into_iter()
        .filter(|file| !file.text.starts_with("//!") && !file.text.starts_with("#![no_main]"))
        .filter(|file| !(file.is_test() && file.path.starts_with("src/")))
        .map(|file| file.path)
        .collect();
    assert_none("files that do not start with //!", &silent);
}

#[test]
fn lines_are_clean() {
    let mut wrong = Vec::new();
    for file in rust_files() {
        for (index, line) in file.text.lines().enumerate() {
            if line.ends_with([' ', '\t']) {
                wrong.push(format!("{}:{}: blanks at the end", file.path, index + 1));
            }
            let length = line.chars().count();
            // The row of a table cannot be broken.
            let is_row = line.starts_with("//! |") && line.ends_with('|');
            if length > LINE_CHARS_MAX && !is_row {
                wrong.push(format!(
                    "{}:{}: {length} characters, at most {LINE_CHARS_MAX}",
                    file.path,
                    index + 1
                ));
            }
        }
    }
    assert_none("lines", &wrong);
}

#[test]
fn every_limit_is_used() {
    let all = sources();
    let (limits, others): (Vec<&File>, Vec<&File>) = all
        .iter()
        .partition(|file| file.path == "src/config/limits.rs");
    let names: Vec<&str> = limits
        .iter()
        .flat_map(|file| file.code())
        .filter_map(|(_, code)| code.strip_prefix("pub const ")?.split_once(':'))
        .filter(|(name, _)| *name != "ALL")
        .map(|(name, _)| name)
        .collect();
    assert!(names.len() > 10, "the limits have moved: {names:?}");
    let unused: Vec<String> = names
        .into_iter()
        .filter(|name| {
            !others
                .iter()
                .any(|file| file.code().any(|(_, code)| has_word(code, name)))
        })
        .map(str::to_owned)
        .collect();
    assert_none("limits that nothing enforces", &unused);
}

/// The requirement ids in a line such as `// spec: 9298-3-a, 9298-3-c`.
fn cited(line: &str) -> Vec<&str> {
    let Some((_, list)) = line.split_once("spec: ") else {
        return Vec::new();
    };
    if !line.trim_start().starts_with("//") {
        return Vec::new();
    }
    list.split([',', ' '])
        .filter(|id| !id.is_empty())
        .take_while(|id| is_requirement(id))
        .collect()
}

/// The requirement id that a line of a checklist (`- [ ] id`) or of a table (`| id |`) defines.
fn defined(line: &str) -> Option<&str> {
    let boxes = ["- [ ] ", "- [x] ", "| "];
    let rest = boxes.iter().find_map(|start| line.strip_prefix(start))?;
    rest.split(' ').next().filter(|id| is_requirement(id))
}

/// Shaped like an id: dashes between groups of lower-case letters, digits and dots.
fn is_requirement(id: &str) -> bool {
    let id = id.trim_end_matches(['.', ';', ':']);
    let group = |group: &str| {
        !group.is_empty()
            && group
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.')
    };
    id.contains('-') && id.split('-').all(group)
}

#[test]
fn cited_requirements_exist() {
    let Ok(specs) = fs::read_dir(repository().join(SPECS)) else {
        println!("{SPECS} is not there: the ids that tests cite are not compared with it");
        return;
    };
    let specs: Vec<String> = specs
        .filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok())
        .collect();
    let known: HashSet<&str> = specs
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(defined)
        .collect();
    assert!(
        known.len() > 100,
        "the specifications have another form now"
    );
    let mut unknown = Vec::new();
    for file in rust_files() {
        for (index, line) in file.text.lines().enumerate() {
            for id in cited(line) {
                if !known.contains(id.trim_end_matches(['.', ';', ':'])) {
                    unknown.push(format!("{}:{}: {id}", file.path, index + 1));
                }
            }
        }
    }
    assert_none("requirements that no specification knows", &unknown);
}

/// The checks above are only as good as these.
mod readers {
    use super::*;

    #[test]
    fn import_paths() {
        let text = "use crate::wire::varint;\n\
                    use crate::{net::udp::{self, Socket as S}, http::{request::*, h3}, error};\n\
                    // use crate::worker;\n\
                    fn f() { $crate::wire::x(\"//\"); mycrate::y(); crate::z() }";
        let expected = [
            "wire::varint",
            "net::udp::self",
            "net::udp::Socket",
            "http::request::*",
            "http::h3",
            "error",
            "wire::x",
            "z",
        ];
        assert_eq!(imports(text), expected);
        assert!(inside("http::request::RequestHead", "http::request"));
        assert!(!inside("http::requests", "http::request") && !inside("http", "http::request"));
    }

    #[test]
    fn unfinished_imports_end() {
        for text in [
            "use crate::",
            "use crate::{a",
            "use crate::{a::{b, c",
            "use crate::{=}",
        ] {
            assert!(imports(text).len() < 4, "{text}");
        }
    }

    #[test]
    fn comments_and_words() {
        assert_eq!(strip_comment("a(\"http://x\"); // b"), "a(\"http://x\"); ");
        assert_eq!(strip_comment("a('\"'); // b"), "a('\"'); ");
        assert_eq!(strip_comment("a(\"\\\"//\");"), "a(\"\\\"//\");");
        assert!(has_word("  println!(1)", "println!") && !has_word("eprintln!(1)", "println!"));
        assert!(has_word("libc::x", "libc") && !has_word("libcfg", "libc"));
    }

    #[test]
    fn citations() {
        assert_eq!(
            cited("    // spec: 9298-3-a, tp-1 9000-10.1-c and more"),
            ["9298-3-a", "tp-1", "9000-10.1-c"]
        );
        assert_eq!(cited("/// spec: 9298-3.1-m."), ["9298-3.1-m."]);
        assert_eq!(defined("- [ ] 9298-3-a MUST x"), Some("9298-3-a"));
        assert_eq!(defined("| tp-1 | REC | x |"), Some("tp-1"));
        assert!(defined("| id | lvl |").is_none());
        assert!(cited("let x = \"spec: 9298-3-a\";").is_empty());
    }
}
