//! Imports point upwards: a module uses only what the table prints before it.
//!
//! What is looked at: `crate::…` paths and groups, and `super::…` paths that leave their module. What is not: comments,
//! documentation, `mod tests` tails and files named so, which may use anything. `lib.rs` names everything and is exempt.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// The tiers, and in each the modules in an order in which a later one may use an earlier one.
const TIERS: [(&str, &[&str]); 8] = [
    ("words", &["sync", "base62", "text", "count", "clock", "id", "access", "scope", "request", "secret"]),
    ("values", &["token", "bearer", "decision", "actor", "config"]),
    ("ports", &["hash", "audit", "store"]),
    ("mechanisms", &["cache", "verify"]),
    ("use cases", &["authenticator", "issue"]),
    ("shell", &["middleware", "axum"]),
    ("test_util", &["test_util"]),
    ("guides", &["docs"]),
];

#[test]
fn every_import_points_upwards() {
    let sources = sources().expect("src can be read");
    let mut seen = 0;
    let mut objections = Vec::new();
    for source in &sources {
        let imports = imports(&source.text, source.depth);
        seen += imports.len();
        objections.extend(imports.iter().filter_map(|imported| objection(&source.module, imported)));
    }
    assert!(objections.is_empty(), "{}", objections.join("\n"));
    assert!(seen > 50, "only {seen} imports found: the detector no longer sees them");
}

#[test]
fn every_module_stands_in_a_tier_and_every_entry_is_a_module() {
    let mut modules: Vec<_> = sources().expect("src can be read").into_iter().map(|source| source.module).collect();
    modules.sort();
    modules.dedup();
    let mut table: Vec<_> = TIERS.iter().flat_map(|(_, modules)| modules.iter().copied()).collect();
    table.sort_unstable();
    assert_eq!(modules, table);
}

#[test]
fn a_planted_wrong_import_is_caught() {
    let wrong = [
        "use crate::store::MemoryStore;",
        "fn f() -> crate::middleware::TokenAuth<()> { todo!() }",
        "use crate::{\n    id::{OwnerId, TokenId},\n    cache::{Cache, entry::Entry},\n};",
        "use crate::{id, verify};",
        "use super::store::MemoryStore;",
        "use crate::MemoryStore;",
        "#[cfg(test)]\nmod tests {\n    use crate::id::TokenId;\n}\nuse crate::audit::AuditSink;",
    ];
    for source in wrong {
        assert_eq!(objections("scope", source).len(), 1, "{source}");
    }
}

#[test]
fn what_is_no_wrong_import_is_left_alone() {
    let right = [
        "use crate::access::Access;",
        "use crate::{\n    id::{OwnerId, TokenId},\n    text::{self, TextError},\n};",
        "use crate::scope::Scope;",
        "//! See [`crate::store`].\n/// And [`crate::cache::Cache`].\n// And crate::verify.",
        "#[cfg(test)]\nmod tests {\n    use crate::store::MemoryStore;\n}\n",
        "use other_crate::store::MemoryStore;",
    ];
    for source in right {
        assert_eq!(objections("scope", source), Vec::<String>::new(), "{source}");
    }
}

#[test]
fn the_order_within_a_tier_counts() {
    assert_eq!(objections("scope", "use crate::access::Access;").len(), 0);
    assert_eq!(objections("access", "use crate::scope::Scope;").len(), 1);
}

fn objections(module: &str, source: &str) -> Vec<String> {
    imports(source, 1).iter().filter_map(|imported| objection(module, imported)).collect()
}

/// What is wrong with an import, if anything.
fn objection(importer: &str, imported: &str) -> Option<String> {
    match (rank(importer), rank(imported)) {
        _ if importer == imported => None,
        (None, _) => Some(format!("{importer} stands in no tier")),
        (_, None) => Some(format!("{importer} imports crate::{imported}, which is no module of a tier")),
        (Some(own), Some(other)) if other < own => None,
        _ => Some(format!("{importer} imports crate::{imported}, which stands after it")),
    }
}

fn rank(module: &str) -> Option<usize> {
    TIERS.iter().flat_map(|(_, modules)| modules.iter()).position(|known| *known == module)
}

/// The first segment of every path from the crate's root. `depth` is how many `super::` lead there.
fn imports(source: &str, depth: usize) -> Vec<String> {
    let code = code(source);
    let from_super = "super::".repeat(depth);
    ["crate::", &from_super].iter().flat_map(|root| paths_after(&code, root)).collect()
}

fn paths_after(code: &str, root: &str) -> Vec<String> {
    let starts = code.match_indices(root).filter(|(at, _)| !code[..*at].ends_with(is_word));
    starts.flat_map(|(at, _)| first_segments(&code[at + root.len()..])).collect()
}

/// `x` of `x::y`; `x` and `y` of `{x::z, y}`; nothing of `*` and `self`.
fn first_segments(path: &str) -> Vec<String> {
    let elements = match path.strip_prefix('{') {
        Some(group) => elements(group),
        None => vec![path.to_owned()],
    };
    let words = elements.iter().map(|element| element.trim().chars().take_while(|c| is_word(*c)).collect::<String>());
    words.filter(|word| !word.is_empty() && word != "self").collect()
}

/// The elements of a group whose opening brace has been read, up to its closing one.
fn elements(group: &str) -> Vec<String> {
    let mut elements = vec![String::new()];
    let mut depth = 0_usize;
    for c in group.chars() {
        match c {
            ',' if depth == 0 => elements.push(String::new()),
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            _ if depth == 0 => elements.last_mut().into_iter().for_each(|element| element.push(c)),
            _ => {}
        }
    }
    elements
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// A source without its comment lines and its `mod tests`.
fn code(source: &str) -> String {
    let mut code = String::new();
    let mut in_tests = false;
    for line in source.lines() {
        in_tests |= line.starts_with("mod tests {");
        if !in_tests && !line.trim_start().starts_with("//") {
            code.push_str(line);
            code.push('\n');
        }
        in_tests &= line != "}";
    }
    code
}

struct Source {
    module: String,
    depth: usize,
    text: String,
}

fn sources() -> io::Result<Vec<Source>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    let named = files.iter().filter(|file| **file != root.join("lib.rs") && !file.ends_with("tests.rs"));
    named.map(|file| read(&root, file)).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn read(root: &Path, file: &Path) -> io::Result<Source> {
    let path = file.strip_prefix(root).map_err(io::Error::other)?.with_extension("");
    let mut names: Vec<_> = path.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    names.retain(|name| name != "mod");
    let depth = names.len();
    let module = names.into_iter().next().unwrap_or_default();
    Ok(Source { module, depth, text: fs::read_to_string(file)? })
}
