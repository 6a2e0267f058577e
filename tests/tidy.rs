//! What must be absent from the tree, checked by reading it: the invariants that ARCHITECTURE.md opens with and that no compiler
//! sees. A test that fails names every place at fault.

#![allow(clippy::expect_used, reason = "a test that cannot read the tree should say so and fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use proc_macro2::{TokenStream, TokenTree};

/// A file longer than this wants to be two.
const SOURCE_LINES: usize = 600;
/// More than this and nobody reads it.
const ARCHITECTURE_LINES: usize = 150;
/// What the README tells, and `.ci/run` runs.
const TEST_COMMAND: &str = "cargo xtask test";
/// What people write, as opposed to what tools do.
const SOURCES: [&str; 10] = ["rs", "sql", "proto", "d2", "mjs", "js", "ts", "tsx", "css", "sh"];
/// Tables the kit makes in every service's schema; bootstrap and kit name them without one.
const KIT_MIGRATIONS: &str = "crates/kit/migrations/";

#[test]
fn no_service_reads_anothers_schema() {
    let tree = Tree::read();
    let migrations: BTreeMap<&str, Vec<&File>> = schemas(&tree)
        .into_iter()
        .map(|schema| (schema, tree.below(&format!("services/{schema}/migrations/")).collect()))
        .collect();
    assert!(migrations.len() > 1, "services with migrations are expected below services/");
    let kit: Vec<&File> = tree.below(KIT_MIGRATIONS).collect();
    let mut faults = Vec::new();
    for (other, files) in &migrations {
        // Names that Rust code can mean by `other.name` in a string: in there, `other.` alone may be a subject or a domain.
        let relations: BTreeSet<String> =
            files.iter().chain(&kit).flat_map(|file| created(&without_comments(&file.text))).collect();
        for file in tree.below("services/").filter(|file| !file.is_below(&format!("services/{other}/"))) {
            let found = match file.extension() {
                "sql" => first_name_in(other, &without_comments(&file.text)),
                "json" if file.path.contains("/.sqlx/") => first_name_in(other, &query_of(file)),
                "rs" => file.strings().iter().find_map(|text| {
                    names_in(other, text).into_iter().find(|name| relations.contains(name.as_str()))
                }),
                _ => None,
            };
            faults.extend(found.map(|name| format!("{} reads {other}.{name}", file.path)));
        }
    }
    none(&faults);
}

#[test]
fn domain_code_has_no_io_no_async_and_no_clock() {
    let banned: [&[&str]; 8] = [
        &["async"],
        &["await"],
        &["tokio"],
        &["sqlx", ":", ":", "query"],
        &["PgConnection"],
        &["Utc", ":", ":", "now"],
        &["SystemTime"],
        &["Clock"],
    ];
    let tree = Tree::read();
    let domain = tree
        .rust()
        .filter(|file| file.is_below("services/"))
        .filter(|file| file.path.ends_with("/domain.rs") || file.path.contains("/domain/"));
    none(&domain.flat_map(|file| file.holding(&banned)).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_unfinished() {
    let banned: [&[&str]; 4] =
        [&["todo", "!"], &["unimplemented", "!"], &["#", "[", "ignore"], &["thread", ":", ":", "sleep"]];
    let tree = Tree::read();
    none(&tree.rust().flat_map(|file| file.holding(&banned)).collect::<Vec<_>>());
}

#[test]
fn every_rust_file_opens_by_saying_what_lives_there() {
    let tree = Tree::read();
    none(&tree.rust().filter(|file| !file.text.starts_with("//! ")).map(File::named).collect::<Vec<_>>());
}

#[test]
fn no_source_file_is_too_long() {
    let tree = Tree::read();
    let long = tree.files.iter().filter(|file| SOURCES.contains(&file.extension()) && !file.is_vendored());
    let long = long.filter(|file| file.lines() > SOURCE_LINES);
    none(&long.map(|file| format!("{} has {} lines", file.path, file.lines())).collect::<Vec<_>>());
}

#[test]
fn every_migration_is_dated_and_says_why() {
    let tree = Tree::read();
    let migrations = tree.files.iter().filter(|file| file.path.contains("/migrations/"));
    let mut faults = Vec::new();
    for file in migrations {
        if !is_dated(file.name()) {
            faults.push(format!("{}: its name is not <date and time, 14 digits>_<words>.sql", file.path));
        }
        if !file.text.starts_with("-- ") {
            faults.push(format!("{}: it does not open with a comment", file.path));
        }
    }
    none(&faults);
}

#[test]
fn every_shared_dependency_is_used() {
    let tree = Tree::read();
    let root = tree.file("Cargo.toml");
    let shared = section(&root.text, "[workspace.dependencies]");
    let used: BTreeSet<&str> = tree
        .manifests()
        .flat_map(|manifest| manifest.text.lines())
        .filter(|line| line.contains("workspace"))
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .collect();
    let unused =
        shared.filter_map(|line| line.split([' ', '=', '.']).next()).filter(|name| !used.contains(name));
    none(&unused.map(|name| format!("{name} is used by no crate")).collect::<Vec<_>>());
}

#[test]
fn every_crate_inherits_the_lints_and_the_edition() {
    let tree = Tree::read();
    let mut faults = Vec::new();
    for manifest in tree.manifests() {
        if section(&manifest.text, "[lints]").all(|line| line != "workspace = true") {
            faults.push(format!("{} does not inherit the lints", manifest.path));
        }
        if !manifest.text.contains("edition.workspace = true") {
            faults.push(format!("{} does not inherit the edition", manifest.path));
        }
    }
    none(&faults);
}

#[test]
fn the_readme_and_the_merge_check_name_one_test_command() {
    let tree = Tree::read();
    let script = tree.file(".ci/run");
    let last = script.text.lines().last().unwrap_or_default();
    assert_eq!(last, format!("exec {TEST_COMMAND}"), ".ci/run ends with the README's test command");
    let mode = fs::metadata(root().join(".ci/run")).expect("it was just read").permissions().mode();
    assert_eq!(mode & 0o111, 0o111, ".ci/run can be executed");
    let readme = tree.file("README.md");
    assert!(
        readme.text.lines().any(|line| line.trim().starts_with(TEST_COMMAND)),
        "README.md gives `{TEST_COMMAND}` on a line of its own"
    );
}

#[test]
fn the_architecture_stays_a_short_read() {
    let tree = Tree::read();
    let lines = tree.file("ARCHITECTURE.md").lines();
    assert!(
        lines <= ARCHITECTURE_LINES,
        "ARCHITECTURE.md has {lines} lines, and at most {ARCHITECTURE_LINES} are read"
    );
}

#[test]
fn the_licence_is_here_and_every_crate_names_it() {
    let tree = Tree::read();
    let licence = tree.file("LICENSE");
    assert!(licence.text.contains("Apache License") && licence.text.contains("Version 2.0"));
    let silent = tree.manifests().filter(|manifest| !manifest.text.contains("license.workspace = true"));
    none(&silent.map(File::named).collect::<Vec<_>>());
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    // Spelled in two parts, for this file is read as well.
    let homes = [concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let tree = Tree::read();
    let mut faults = Vec::new();
    for file in &tree.files {
        let lines = file.text.lines().enumerate();
        let lines = lines.filter(|(_, line)| homes.iter().any(|home| line.contains(home)));
        faults.extend(lines.map(|(index, line)| format!("{}:{}: {}", file.path, index + 1, line.trim())));
    }
    none(&faults);
}

/// Fails with every fault on a line of its own.
#[track_caller]
fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_owned()
}

/// The repository's text files: what git tracks or would.
struct Tree {
    files: Vec<File>,
}

struct File {
    /// From the root.
    path: String,
    text: String,
}

impl Tree {
    fn read() -> Self {
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root())
            .output()
            .expect("git is installed");
        let complaint = String::from_utf8_lossy(&listed.stderr);
        assert!(listed.status.success(), "git lists the tree's files: {complaint}");
        let paths = String::from_utf8(listed.stdout).expect("paths are UTF-8");
        let files = paths
            .split_terminator('\0')
            // A deleted file may still be listed, and a picture is no text.
            .filter_map(|path| {
                Some(File { path: path.to_owned(), text: fs::read_to_string(root().join(path)).ok()? })
            })
            .collect();
        Self { files }
    }

    fn file(&self, path: &str) -> &File {
        self.files.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("{path} is missing"))
    }

    fn below(&self, folder: &str) -> impl Iterator<Item = &File> {
        self.files.iter().filter(move |file| file.is_below(folder))
    }

    fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.extension() == "rs")
    }

    /// The manifests of crates.
    fn manifests(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with("/Cargo.toml"))
    }
}

impl File {
    fn named(&self) -> String {
        self.path.clone()
    }

    fn is_below(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }

    /// Kept as published elsewhere.
    fn is_vendored(&self) -> bool {
        self.is_below("proto/google/")
    }

    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    fn extension(&self) -> &str {
        self.name().rsplit_once('.').map_or("", |(_, extension)| extension)
    }

    fn lines(&self) -> usize {
        self.text.lines().count()
    }

    /// The tokens of a Rust file: comments are none, strings are single ones, groups are opened out.
    fn tokens(&self) -> Vec<Token> {
        let stream: TokenStream = self.text.parse().unwrap_or_else(|error| panic!("{}: {error}", self.path));
        let mut tokens = Vec::new();
        flatten(stream, &mut tokens);
        tokens
    }

    /// Its string literals, as they are written.
    fn strings(&self) -> Vec<String> {
        self.tokens().into_iter().map(|token| token.text).filter(|text| text.contains('"')).collect()
    }

    /// The places where one of `banned`, a row of tokens, stands in code. The last token of a row may go on (`query_as`).
    fn holding(&self, banned: &[&[&str]]) -> Vec<String> {
        let tokens = self.tokens();
        let mut places = Vec::new();
        for row in banned {
            for window in tokens.windows(row.len()).filter(|window| begins(window, row)) {
                places.push(format!("{}:{}: {}", self.path, window[0].line, row.concat()));
            }
        }
        places
    }
}

struct Token {
    text: String,
    line: usize,
}

fn flatten(stream: TokenStream, tokens: &mut Vec<Token>) {
    for tree in stream {
        let line = tree.span().start().line;
        match tree {
            TokenTree::Group(group) => {
                let text = match group.delimiter() {
                    proc_macro2::Delimiter::Bracket => "[",
                    proc_macro2::Delimiter::Brace => "{",
                    proc_macro2::Delimiter::Parenthesis => "(",
                    proc_macro2::Delimiter::None => "",
                };
                tokens.push(Token { text: text.to_owned(), line });
                flatten(group.stream(), tokens);
            }
            other => tokens.push(Token { text: other.to_string(), line }),
        }
    }
}

fn begins(window: &[Token], row: &[&str]) -> bool {
    let whole = row.len() == 1;
    window.iter().zip(row).enumerate().all(|(index, (token, banned))| {
        token.text == *banned
            || (!whole && index + 1 == row.len() && token.text.starts_with(&format!("{banned}_")))
    })
}

/// The services that own a schema.
fn schemas(tree: &Tree) -> BTreeSet<&str> {
    tree.below("services/")
        .filter_map(|file| {
            let (service, rest) = file.path.strip_prefix("services/")?.split_once('/')?;
            rest.starts_with("migrations/").then_some(service)
        })
        .collect()
}

/// SQL without its `--` comments.
fn without_comments(sql: &str) -> String {
    sql.lines().map(|line| line.split("--").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The query in a file of the SQL macros' metadata.
fn query_of(file: &File) -> String {
    let data: serde_json::Value = serde_json::from_str(&file.text).expect("metadata is JSON");
    data["query"].as_str().expect("metadata holds its query").to_owned()
}

/// What SQL creates: the word before the bracket or the end, without its schema.
fn created(sql: &str) -> Vec<String> {
    let words: Vec<&str> =
        sql.split(|c: char| c.is_whitespace() || c == '(').filter(|word| !word.is_empty()).collect();
    let kinds = ["table", "view", "type", "function", "sequence", "domain", "procedure"];
    let mut names = Vec::new();
    for (index, _) in words.iter().enumerate().filter(|(_, word)| kinds.contains(word)) {
        let made = words[index.saturating_sub(3)..index].contains(&"create");
        let name = words[index + 1..].iter().find(|next| !["if", "not", "exists"].contains(next));
        if let Some(name) = name.filter(|_| made) {
            names.push(name.rsplit('.').next().unwrap_or(name).trim_end_matches(';').to_owned());
        }
    }
    names
}

/// The first name that `text` takes from `schema`.
fn first_name_in(schema: &str, text: &str) -> Option<String> {
    names_in(schema, text).into_iter().next()
}

/// Every `name` that stands in `text` as `schema.name`, where `schema` is a whole word and not the end of a longer path.
fn names_in(schema: &str, text: &str) -> Vec<String> {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    let dotted = format!("{schema}.");
    text.match_indices(&dotted)
        .filter(|(at, _)| !text[..*at].ends_with(|c| part_of_name(c) || c == '.'))
        .map(|(at, _)| text[at + dotted.len()..].chars().take_while(|c| part_of_name(*c)).collect::<String>())
        .filter(|name| !name.is_empty())
        .collect()
}

/// The lines of a manifest's section, without comments and empty ones.
fn section<'a>(manifest: &'a str, title: &str) -> impl Iterator<Item = &'a str> {
    let lines = manifest.lines().map(str::trim).skip_while(move |line| *line != title).skip(1);
    lines.take_while(|line| !line.starts_with('[')).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Whether a migration's name is `20261101000001_words.sql`.
fn is_dated(name: &str) -> bool {
    let Some((date, words)) = name.strip_suffix(".sql").and_then(|stem| stem.split_once('_')) else {
        return false;
    };
    let digits = date.len() == "YYYYMMDDhhmmss".len() && date.bytes().all(|byte| byte.is_ascii_digit());
    digits
        && !words.is_empty()
        && words.bytes().all(|byte| byte.is_ascii_lowercase() || b"_0123456789".contains(&byte))
}

#[test]
fn the_checks_themselves_see_what_they_look_for() {
    assert_eq!(names_in("billing", "select 1 from billing.charge c"), ["charge"]);
    assert!(names_in("billing", "clinic.billing.v1 my_billing.charge").is_empty());
    assert_eq!(
        created("create table if not exists a.b (c int);\ncreate type a.d as enum ('x');"),
        ["b", "d"]
    );
    let file = File { path: "x.rs".into(), text: "// todo!\nfn f() {\n sqlx::query_as!(\"tokio\") }".into() };
    assert_eq!(
        file.holding(&[&["sqlx", ":", ":", "query"], &["tokio"], &["todo", "!"]]),
        ["x.rs:3: sqlx::query"]
    );
    assert!(is_dated("20261101000001_fees.sql") && !is_dated("2026_fees.sql"));
}
