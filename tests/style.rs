//! Checks the prose of the repository: dead links and anchors, long lines, and words that are not
//! terms of the field. Documentation and comments count; code does not.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use support::page::anchor;
use support::read;

/// The most characters of a line of Markdown outside tables and code.
const LONGEST_LINE: usize = 160;

/// Words that documentation and comments do not use, in lower case.
const WORDS: &[&str] = &[
    "anybody",
    "believed",
    "beside",
    "books",
    "crowd",
    "crowds",
    "house",
    "nobody",
    "readings",
    "remembered",
    "room",
    "twin",
    "twins",
    "whatever",
    "whoever",
];

/// The kinds of file with comments, and the start of a comment.
const COMMENTS: [(&str, &str); 8] = [
    ("rs", "//"),
    ("yaml", "# "),
    ("yml", "# "),
    ("toml", "# "),
    ("sh", "# "),
    ("tf", "# "),
    ("tpl", "# "),
    ("Makefile", "# "),
];

/// Every file in the repository, without test vectors.
fn files() -> Vec<String> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "--deduplicate",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("git");
    let names = String::from_utf8(output.stdout).expect("UTF-8");
    let is_own = |name: &&str| !name.starts_with("tests/vectors/");
    let exists = |name: &&str| support::repository(name).exists();
    let names = names.lines().filter(is_own).filter(exists);
    names.map(str::to_owned).collect()
}

fn pages() -> Vec<String> {
    let mut pages = files();
    pages.retain(|name| name.ends_with(".md"));
    assert!(pages.len() > 15, "{pages:?}");
    pages
}

/// The lines of a page outside code blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_block = false;
    text.lines()
        .enumerate()
        .filter(move |(_, line)| {
            let fence = line.trim_start().starts_with("```");
            in_block ^= fence;
            !in_block && !fence
        })
        .map(|(number, line)| (number + 1, line))
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    prose(text)
        .filter(|(_, line)| line.starts_with('#'))
        .map(|(_, heading)| anchor(heading.trim_start_matches('#').trim()))
        .collect()
}

/// The local target of a link as a path in the repository, and its anchor.
fn target(page: &str, link: &str) -> Option<(String, String)> {
    if link.contains("://") {
        return None;
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder);
    let path = match path {
        "" => page.to_owned(),
        path => format!("{folder}/{path}")
            .trim_start_matches('/')
            .to_owned(),
    };
    Some((path, anchor.to_owned()))
}

#[test]
fn links_and_anchors_resolve() {
    let (mut dead, mut count) = (Vec::new(), 0);
    for page in pages() {
        let text = read(&page);
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().expect("a link");
            let Some((path, anchor)) = target(&page, link) else {
                continue;
            };
            let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(&path);
            let resolves = if anchor.is_empty() {
                full.exists()
            } else {
                std::fs::read_to_string(&full).is_ok_and(|to| anchors(&to).contains(&anchor))
            };
            if !resolves {
                dead.push(format!("{page}: {link}"));
            }
            count += 1;
        }
    }
    assert!(count > 80, "{count} links");
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

#[test]
fn lines_of_the_pages_are_short() {
    let mut long = Vec::new();
    for page in pages() {
        for (number, line) in prose(&read(&page)) {
            let length = line.chars().count();
            if length > LONGEST_LINE && !line.trim_start().starts_with('|') {
                long.push(format!("{page}:{number}: {length} characters"));
            }
        }
    }
    assert!(long.is_empty(), "one sentence a line:\n{}", long.join("\n"));
}

/// The first of [`WORDS`] in the text, or `left out`. Code in backticks and e-mail addresses do not
/// count.
fn ruled_out(text: &str) -> Option<&'static str> {
    let outside_code: String = text.split('`').step_by(2).collect::<Vec<_>>().join(" ");
    let outside_code = outside_code.to_lowercase();
    let is_part = |c: char| !(c.is_alphanumeric() || "@.-_:/".contains(c));
    if outside_code.contains("left out") {
        return Some("left out");
    }
    let words = outside_code.split(is_part);
    let mut words = words.map(|word| word.trim_matches(['.', ':', '-']));
    words.find_map(|word| WORDS.iter().find(|ruled_out| **ruled_out == word).copied())
}

/// The comment of a line, if it has one.
fn comment<'l>(path: &str, line: &'l str) -> Option<&'l str> {
    let (_, start) = COMMENTS
        .iter()
        .find(|(kind, _)| path.rsplit(['.', '/']).next() == Some(kind))?;
    let at = line.find(start)?;
    // `https://` starts no comment.
    let before = line.get(..at)?;
    (before.trim().is_empty() || before.ends_with(' ')).then(|| line.get(at..))?
}

#[test]
fn prose_uses_terms_of_the_field() {
    let mut found = Vec::new();
    for path in files() {
        let Ok(text) = std::fs::read_to_string(support::repository(&path)) else {
            continue;
        };
        let lines: Vec<(usize, &str)> = if path.ends_with(".md") {
            prose(&text).collect()
        } else {
            let lines = text.lines().enumerate();
            lines
                .filter_map(|(number, line)| Some((number + 1, comment(&path, line)?)))
                .collect()
        };
        for (number, line) in lines {
            if let Some(word) = ruled_out(line) {
                found.push(format!("{path}:{number}: {word}"));
            }
        }
    }
    assert!(found.is_empty(), "ruled out:\n{}", found.join("\n"));
}

#[test]
fn recognizes_dead_links_long_lines_and_words() {
    let text = "# A heading\n\n```\n# not a heading\n```\n## The *second*, here\n";
    let expected = ["a-heading", "the-second-here"].map(str::to_owned);
    assert_eq!(anchors(text), expected.into());
    assert_eq!(prose(text).count(), 3);
    assert_eq!(
        target("docs/a.md", "b.md#c"),
        Some(("docs/b.md".to_owned(), "c".to_owned()))
    );
    assert_eq!(target("docs/a.md", "https://example.com/a"), None);
    assert_eq!(ruled_out("Whoever asks"), Some("whoever"));
    assert_eq!(ruled_out("It is left out."), Some("left out"));
    assert_eq!(ruled_out("a `twin`, nobody@example.com"), None);
    assert_eq!(comment("a.rs", "let a = 1; // why"), Some("// why"));
    assert_eq!(comment("a.rs", "let a = \"https://b\";"), None);
    assert_eq!(comment("a.json", "# why"), None);
}
