//! Checks that imports in the core only point to lower layers. Parses the source of every module
//! and follows each path that starts with `crate`, `super`, `self` or a child module: in `use`,
//! inline, and in macro arguments. Code under `cfg(test)` and doc links do not count.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The modules of each layer, from the top. A module may import from lower layers, and from its own
/// without a cycle.
const LAYERS: [&[&str]; 9] = [
    &["filter"],
    &["gate"],
    &["config"],
    &["access", "token_cache", "trace"],
    &["identity", "sign_out", "upgrades"],
    &["token"],
    &["keys"],
    &["crypto"],
    &["cookies", "headers", "json", "reason", "time"],
];

/// The path of a module in its crate, `token::verify` for `src/token/verify.rs`.
type Module = Vec<String>;

/// The imports of each module, with the line of the first.
type Imports = BTreeMap<Module, BTreeMap<Module, usize>>;

fn module(path: &str) -> Module {
    path.split("::")
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The imports between the modules below `folder`, with root file `root`. Imports of the root
/// itself do not count, because it only re-exports, and those of files with tests.
fn imports(folder: &Path, root: &str) -> Imports {
    let mut sources = BTreeMap::new();
    read(folder, &mut Vec::new(), &mut sources);
    sources.remove(&module(root.trim_end_matches(".rs")));
    sources.retain(|module, _| module.last().is_none_or(|name| name != "tests"));
    let modules: BTreeSet<Module> = sources.keys().cloned().collect();
    sources
        .iter()
        .map(|(module, source)| (module.clone(), imports_of(module, source, &modules)))
        .collect()
}

/// The source of each module below `folder`, which has the path `above`.
fn read(folder: &Path, above: &mut Module, sources: &mut BTreeMap<Module, String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .expect("a name")
            .to_owned();
        if path.is_dir() {
            // Programs are separate crates.
            if name != "bin" {
                above.push(name);
                read(&path, above, sources);
                above.pop();
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let mut module = above.clone();
            if name != "mod" {
                module.push(name);
            }
            sources.insert(
                module,
                std::fs::read_to_string(&path).expect("a source file"),
            );
        }
    }
}

/// The other `modules` that the `source` of `module` imports from.
fn imports_of(
    module: &Module,
    source: &str,
    modules: &BTreeSet<Module>,
) -> BTreeMap<Module, usize> {
    let mut paths = Vec::new();
    find_paths(source.parse().expect("Rust"), module, modules, &mut paths);
    let mut imports = BTreeMap::new();
    for (path, line) in paths {
        // The longest prefix of a path that is a module; the rest is an item in it.
        let target = (1..=path.len())
            .rev()
            .map(|length| path[..length].to_vec())
            .find(|part| modules.contains(part));
        if let Some(target) = target.filter(|target| target != module) {
            imports.entry(target).or_insert(line);
        }
    }
    imports
}

/// Each path in `tokens` that starts in this crate, resolved from `here`, with its line.
fn find_paths(
    tokens: TokenStream,
    here: &Module,
    modules: &BTreeSet<Module>,
    paths: &mut Vec<(Module, usize)>,
) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is = |place: usize, text: &str| {
        tokens
            .get(place)
            .is_some_and(|token| token.to_string() == text)
    };
    let mut place = 0;
    while place < tokens.len() {
        if is(place, "#") && is(place + 1, "[cfg (test)]") {
            // The item of an attribute ends with a block or a semicolon.
            while place < tokens.len() && !is(place, ";") && !is_block(&tokens[place]) {
                place += 1;
            }
        } else if is(place, "mod") && tokens.get(place + 2).is_some_and(is_block) {
            let inner = [here.as_slice(), &[tokens[place + 1].to_string()]].concat();
            if let TokenTree::Group(block) = &tokens[place + 2] {
                find_paths(block.stream(), &inner, modules, paths);
            }
            place += 2;
        } else if let TokenTree::Group(group) = &tokens[place] {
            find_paths(group.stream(), here, modules, paths);
        } else if let TokenTree::Ident(name) = &tokens[place]
            && !(place > 0 && is(place - 1, ":"))
            && is(place + 1, ":")
            && is(place + 2, ":")
        {
            let child = [here.as_slice(), &[name.to_string()]].concat();
            let start = match name.to_string().as_str() {
                "crate" => Some(Module::new()),
                "self" => Some(here.clone()),
                "super" => Some(here[..here.len().saturating_sub(1)].to_vec()),
                _ => modules.contains(&child).then_some(child),
            };
            if let Some(start) = start {
                follow(&tokens[place + 1..], start, name.span().start().line, paths);
            }
        }
        place += 1;
    }
}

/// The paths that start with `path` and continue with `tokens`: `::name`, or `::{…}` for several.
fn follow(tokens: &[TokenTree], mut path: Module, line: usize, paths: &mut Vec<(Module, usize)>) {
    let is = |token: Option<&TokenTree>, text: &str| {
        token.is_some_and(|token| token.to_string() == text)
    };
    let mut rest = tokens;
    while is(rest.first(), ":") && is(rest.get(1), ":") {
        match rest.get(2) {
            Some(TokenTree::Ident(name)) if name == "super" => drop(path.pop()),
            Some(TokenTree::Ident(name)) => path.push(name.to_string()),
            Some(TokenTree::Group(group)) => {
                let tokens: Vec<_> = group.stream().into_iter().collect();
                for part in tokens.split(|token| token.to_string() == ",") {
                    if let Some(name) = part.first() {
                        let mut path = path.clone();
                        if !is(Some(name), "self") {
                            path.push(name.to_string());
                        }
                        follow(&part[1..], path, line, paths);
                    }
                }
                return;
            }
            _ => break,
        }
        rest = &rest[3..];
    }
    paths.push((path, line));
}

fn is_block(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
}

/// The number of the layer of `module`, from the top; `None` if the table does not list it.
fn layer(module: &Module) -> Option<usize> {
    LAYERS.iter().position(|names| {
        module
            .first()
            .is_some_and(|name| names.contains(&name.as_str()))
    })
}

/// One line for each import that points upward, and for each module missing in the table.
fn upward(imports: &Imports) -> Vec<String> {
    let mut faults = Vec::new();
    for (from, targets) in imports {
        let Some(own) = layer(from) else {
            faults.push(format!("{} is in no layer", from.join("::")));
            continue;
        };
        for (to, line) in targets {
            if layer(to).is_some_and(|layer| layer < own) {
                faults.push(format!(
                    "{}, line {line}, imports {} from a layer above",
                    from.join("::"),
                    to.join("::")
                ));
            }
        }
    }
    faults
}

/// One line for each import that closes a cycle.
fn cycles(imports: &Imports) -> Vec<String> {
    let mut faults = Vec::new();
    for (from, targets) in imports {
        for (to, line) in targets {
            let mut reached = BTreeSet::new();
            let mut next = vec![to];
            while let Some(module) = next.pop() {
                if reached.insert(module) {
                    next.extend(imports.get(module).into_iter().flat_map(BTreeMap::keys));
                }
            }
            if reached.contains(from) {
                faults.push(format!(
                    "{}, line {line}, imports {}, which imports it",
                    from.join("::"),
                    to.join("::")
                ));
            }
        }
    }
    faults
}

#[test]
fn imports_of_the_core_point_downward() {
    let imports = imports(&support::repository("src"), "lib.rs");
    let faults = [upward(&imports), cycles(&imports)].concat();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    for name in LAYERS.concat() {
        assert!(
            imports.contains_key(&module(name)),
            "no module {name} is left"
        );
    }
}

#[test]
fn modules_of_the_tool_form_no_cycle() {
    let cycles = cycles(&imports(
        &support::repository("src/bin/alb-oidc"),
        "main.rs",
    ));
    assert!(cycles.is_empty(), "{}", cycles.join("\n"));
}

#[test]
fn finds_imports_in_every_form() {
    let modules = [
        "access",
        "config",
        "config::reader",
        "gate",
        "headers",
        "identity",
        "identity::groups",
    ]
    .map(module);
    let modules = BTreeSet::from(modules);
    for (from, source, expected) in [
        ("access", "use crate::gate::RequestHead;", &["gate"][..]),
        (
            "access",
            "use crate::{gate::RequestHead, headers};",
            &["gate", "headers"],
        ),
        (
            "access",
            "use crate::{config::{reader::Object, Config}};",
            &["config", "config::reader"],
        ),
        ("access", "fn f() { let _ = crate::gate::f(1); }", &["gate"]),
        (
            "access",
            "fn f() -> Vec<super::gate::Gate> { vec![] }",
            &["gate"],
        ),
        (
            "access",
            "fn f() { println!(\"{}\", crate::gate::NAME) }",
            &["gate"],
        ),
        ("access", "mod inner { use super::super::gate; }", &["gate"]),
        (
            "access",
            "#[cfg(test)] mod tests { use crate::gate::Gate; } use crate::headers;",
            &["headers"],
        ),
        ("access", "#[cfg(test)] use crate::gate::Gate;", &[]),
        ("access", "/// See [`crate::gate`].\nfn f() {}", &[]),
        (
            "access",
            "use std::access::gate; use other::crate_::gate;",
            &[],
        ),
        (
            "identity",
            "mod groups; pub use groups::Groups;",
            &["identity::groups"],
        ),
        ("identity", "mod groups;", &[]),
        ("identity::groups", "use super::Sources;", &["identity"]),
        ("config", "use crate::config::reader;", &["config::reader"]),
    ] {
        let found = imports_of(&module(from), source, &modules)
            .into_keys()
            .collect::<Vec<_>>();
        assert_eq!(
            found,
            expected.iter().map(|name| module(name)).collect::<Vec<_>>(),
            "{from}: {source}"
        );
    }
}

#[test]
fn reports_upward_imports_and_cycles() {
    let imports_between = |pairs: &[(&str, &str)]| {
        let mut imports = Imports::new();
        for (from, to) in pairs {
            imports.entry(module(to)).or_default();
            imports
                .entry(module(from))
                .or_default()
                .insert(module(to), 1);
        }
        imports
    };
    for pair in [
        ("access", "gate"),
        ("sign_out", "gate"),
        ("keys", "config"),
        ("keys", "token"),
        ("token", "config"),
        ("token::access_token", "config"),
        ("crypto", "token"),
        ("crypto", "keys::jwks"),
        ("identity", "config"),
        ("config", "gate"),
        ("headers", "gate"),
    ] {
        assert_eq!(upward(&imports_between(&[pair])).len(), 1, "{pair:?}");
        assert_eq!(
            upward(&imports_between(&[(pair.1, pair.0)])).len(),
            0,
            "{pair:?}"
        );
    }
    assert_eq!(
        upward(&imports_between(&[("new", "time")])),
        ["new is in no layer"]
    );
    for (pairs, count) in [
        (
            &[
                ("identity", "identity::groups"),
                ("identity::groups", "identity"),
            ][..],
            2,
        ),
        (
            &[("json", "time"), ("time", "reason"), ("reason", "json")],
            3,
        ),
        (
            &[("json", "time"), ("reason", "json"), ("reason", "time")],
            0,
        ),
    ] {
        assert_eq!(cycles(&imports_between(pairs)).len(), count, "{pairs:?}");
    }
}

/// Time, keys and randomness are arguments everywhere else.
#[test]
fn only_filter_uses_the_host_and_its_clocks() {
    let mut sources = BTreeMap::new();
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    read(folder, &mut Vec::new(), &mut sources);
    let uses_host = |source: &String| {
        ["proxy_wasm::", "SystemTime::", "Instant::"]
            .iter()
            .any(|name| source.contains(name))
    };
    let modules = sources.iter().filter(|(_, source)| uses_host(source));
    let modules: BTreeSet<_> = modules.map(|(module, _)| module[0].as_str()).collect();
    assert_eq!(modules, BTreeSet::from(["filter"]));
}
