//! Finds the reachable panics in the built module's code. From each export it follows every call,
//! an indirect call to each function of that type in the table, and lists the places where the code
//! ends in a panic or an abort. Each place needs an argument in [`ARGUED`], for every toolchain.
//! Compilers eliminate different places, so an argument without a place fails only with the
//! reference toolchain, which `.ci/reference-toolchain` names. A panic kills the VM, and its
//! waiting requests hang.
//!
//! Reads `target/alb_oidc_filter.named.wasm`, which the linker writes next to the module: the same
//! code, with names.

use std::collections::{BTreeMap, BTreeSet};
use wasmparser::{
    BinaryReader, DataKind, ElementItems, ExternalKind, FuncType, Name, NameSectionReader,
    Operator, Parser, Payload, ProducersSectionReader, TypeRef,
};

/// The argument why a panic in a function is harmless. A function belongs to the first entry that
/// matches: its name ([`normal`]) starts with one of the words, or contains one of those that start
/// with `*`, and its panic is one of `by`, if any. A panic of a dependency that is compiled into a
/// function of the filter, or into an export, has its source file for a name ([`source`]):
/// `regex_lite::pool.rs`.
struct Argument {
    of: &'static [&'static str],
    by: &'static [&'static str],
    because: &'static str,
}

const fn argued(of: &'static [&'static str], because: &'static str) -> Argument {
    Argument {
        of,
        by: &[],
        because,
    }
}

/// The functions that continue a panic, and the ways in which a VM aborts. Their callers need an
/// argument.
const MACHINERY: &[&str] = &[
    "core::panicking::",
    "core::option::unwrap_failed",
    "core::option::expect_failed",
    "core::result::unwrap_failed",
    "core::cell::panic_already",
    "core::slice::index::slice_index_fail",
    "core::slice::copy_from_slice_impl::len_mismatch_fail",
    "core::str::slice_error_fail",
    "alloc::alloc::handle_alloc_error",
    "alloc::raw_vec::handle_error",
    "alloc::raw_vec::capacity_overflow",
    "alloc::vec::Vec<_, _>::insert_mut::assert_failed",
    "std::panicking::",
    "std::alloc::rust_oom",
    "std::alloc::default_alloc_error_hook",
    "std::process::abort",
    "std::sys::backtrace::",
    "std::sys::pal::wasi::",
    "std::sys::pal::wasip1::",
    "std::thread::local::panic_access_error",
    "std::thread::id::ThreadId::new::exhausted",
    "hashbrown::raw::Fallibility::capacity_overflow",
    "__rustc::",
    "rust_panic",
    "_Exit",
    "__wasi_proc_exit",
    "abort",
];

/// Every place in the module that may panic, in groups, with the argument.
const ARGUED: &[Argument] = &[
    Argument {
        of: &["*"],
        by: &[
            "alloc::raw_vec::",
            "alloc::alloc::handle_alloc_error",
            "hashbrown::raw::Fallibility",
        ],
        because: "the VM has no memory left. What the filter keeps is bounded (tests/model), what one request takes is bounded by \
                  Envoy's limit on headers, and what it reads of an answer by its own; a VM may have 4 GiB",
    },
    // The filter itself, by function and panic.
    Argument {
        of: &["core::time.rs"],
        by: &["core::option::expect_failed"],
        because: "a fifth of a Duration: the nanoseconds are fewer than a second's, so that its seconds do not overflow",
    },
    Argument {
        of: &["alb_oidc_filter::keys::cache::KeyCache::insert"],
        by: &["alloc::vec::Vec<_, _>::insert_mut::assert_failed"],
        because: "inserts where a binary search of the same vector said",
    },
    Argument {
        of: &["alb_oidc_filter::"],
        by: &["abort"],
        because: "an Rc is cloned: it aborts at 2^32 of them, which do not fit into the memory",
    },
    // The SDK.
    Argument {
        of: &["*as proxy_wasm::traits::", "proxy_wasm::traits.rs"],
        by: &["core::result::unwrap_failed"],
        because: "default methods of the SDK's traits, which nothing calls: they stand in a table of the trait's functions. The filter's \
                  own methods cannot unwrap",
    },
    argued(
        &[
            "proxy_wasm::hostcalls::dispatch_http_call",
            "proxy_wasm::hostcalls.rs",
        ],
        "panics on a status other than Ok, BadArgument and InternalFailure; proxy_http_call has no other in any supported Envoy, \
         and gives no number of a call twice",
    ),
    argued(
        &[
            "proxy_wasm::hostcalls::set_effective_context",
            "proxy_wasm::dispatcher::",
            "*proxy_wasm::dispatcher::",
            "proxy_wasm::dispatcher.rs",
        ],
        "the SDK panics where the host names a context or a call that it has not told it of, or enters the VM again from a host \
         call: Envoy does neither, and puts off what would",
    ),
    argued(
        &["proxy_wasm::hostcalls::"],
        "called by the default methods alone, which nothing calls",
    ),
    // Dependencies, with their own invariants.
    argued(
        &["regex_lite::", "*regex_lite::"],
        "a compiled regex and the ends of its matches: patterns are the operator's",
    ),
    argued(
        &["serde_json::", "*serde_json::"],
        "indexes the parsed slice: untrusted input, and fuzzed",
    ),
    argued(
        &["base64::"],
        "indexes its own buffer of the right size: untrusted input, and fuzzed",
    ),
    argued(
        &[
            "p256::",
            "ecdsa::",
            "elliptic_curve::",
            "crypto_bigint::",
            "primeorder::",
            "primefield::",
            "wnaf::",
            "sec1::",
            "subtle::",
        ],
        "numbers of 32 bytes and points of 65, as they are once read: tried with Wycheproof's vectors",
    ),
    argued(
        &["const_oid::"],
        "the printing of an object identifier, for which nothing asks",
    ),
    argued(
        &["jsonwebtoken::", "*jsonwebtoken::"],
        "a provider of cryptography that is not the filter's, which comes first",
    ),
    argued(
        &["itoa::", "u64 as itoa::"],
        "a buffer as long as the longest number",
    ),
    argued(
        &["hashbrown::", "*hashbrown::"],
        "a table of more entries than fit into the memory",
    ),
    // The standard library.
    argued(
        &["alloc::"],
        "its own structures; and what the filter asks of them: chunks of eight bytes, an element inserted where a search said",
    ),
    argued(
        &["core::", "str", "*as core::fmt::"],
        "searching, iterating, printing: an index of the filter's own would not compile",
    ),
    argued(
        &[
            "std::",
            "addr2line::",
            "gimli::",
            "miniz_oxide::",
            "rustc_demangle::",
        ],
        "continues a panic; one thread, uncontended locks, a host with randomness",
    ),
    argued(
        &["sbrk", "__wasilibc_", "dlmalloc"],
        "the C library's memory and environment, as the VM starts",
    ),
];

#[derive(Default)]
struct Function {
    name: String,
    of: u32,
    calls: BTreeSet<u32>,
    /// The types of its indirect calls.
    indirect: BTreeSet<u32>,
    /// The places where its code ends, with the call right before, which did not return, and that
    /// call's last argument: the address of a `Location`.
    ends: Vec<(Option<u32>, Option<u32>)>,
}

/// A module's functions and entry points.
#[derive(Default)]
struct Code {
    types: Vec<FuncType>,
    functions: Vec<Function>,
    exports: Vec<u32>,
    table: BTreeSet<u32>,
    /// Its data, by address.
    data: BTreeMap<u32, Vec<u8>>,
    /// The version of its compiler; empty if the module does not name it.
    compiler: String,
}

impl Code {
    fn read(module: &[u8]) -> Code {
        let mut code = Code::default();
        let mut body = 0;
        for payload in Parser::new(0).parse_all(module) {
            match payload.expect("a section") {
                Payload::TypeSection(section) => {
                    code.types.extend(
                        section
                            .into_iter_err_on_gc_types()
                            .map(|of| of.expect("a type")),
                    );
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import.expect("an import");
                        let TypeRef::Func(of) = import.ty else {
                            panic!("an import that is no function")
                        };
                        code.functions.push(Function {
                            name: import.name.to_owned(),
                            of,
                            ..Function::default()
                        });
                    }
                    body = code.functions.len();
                }
                Payload::FunctionSection(section) => {
                    let of = section.into_iter().map(|of| of.expect("a type"));
                    code.functions.extend(of.map(|of| Function {
                        of,
                        ..Function::default()
                    }));
                }
                Payload::ExportSection(section) => {
                    let exports = section.into_iter().map(|export| export.expect("an export"));
                    let functions = exports.filter(|export| export.kind == ExternalKind::Func);
                    code.exports.extend(functions.map(|export| export.index));
                }
                Payload::StartSection { func, .. } => code.exports.push(func),
                Payload::ElementSection(section) => {
                    for element in section {
                        let ElementItems::Functions(items) = element.expect("an element").items
                        else {
                            panic!("a table of expressions")
                        };
                        code.table.extend(
                            items
                                .into_iter()
                                .map(|function| function.expect("a function")),
                        );
                    }
                }
                Payload::DataSection(section) => {
                    for data in section {
                        let data = data.expect("data");
                        if let DataKind::Active { offset_expr, .. } = data.kind {
                            let offset = offset_expr.get_operators_reader().read();
                            if let Ok(Operator::I32Const { value }) = offset {
                                code.data.insert(value.cast_unsigned(), data.data.to_vec());
                            }
                        }
                    }
                }
                Payload::CodeSectionEntry(entry) => {
                    let operators = entry.get_operators_reader().expect("a body").into_iter();
                    code.functions[body]
                        .follow(operators.map(|operator| operator.expect("an instruction")));
                    body += 1;
                }
                Payload::CustomSection(section) if section.name() == "name" => {
                    for names in NameSectionReader::new(BinaryReader::new(
                        section.data(),
                        section.data_offset(),
                    )) {
                        if let Name::Function(names) = names.expect("names") {
                            for naming in names {
                                let naming = naming.expect("a name");
                                code.functions[naming.index as usize].name = normal(naming.name);
                            }
                        }
                    }
                }
                Payload::CustomSection(section) if section.name() == "producers" => {
                    let section = BinaryReader::new(section.data(), section.data_offset());
                    for field in ProducersSectionReader::new(section).expect("producers") {
                        for value in field.expect("a field").values {
                            let value = value.expect("a value");
                            if value.name == "rustc" {
                                value.version.clone_into(&mut code.compiler);
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        code
    }

    /// Every function that the host can reach.
    fn reached(&self) -> BTreeSet<u32> {
        let mut reached = BTreeSet::new();
        let mut next = self.exports.clone();
        while let Some(number) = next.pop() {
            if reached.insert(number) {
                let function = &self.functions[number as usize];
                next.extend(&function.calls);
                let wanted: Vec<_> = function
                    .indirect
                    .iter()
                    .map(|of| &self.types[*of as usize])
                    .collect();
                let fits = |entry: &&u32| {
                    wanted.contains(&&self.types[self.functions[**entry as usize].of as usize])
                };
                next.extend(self.table.iter().filter(fits));
            }
        }
        reached
    }

    /// The reachable panics: the function or source file, and its call that panics.
    fn panics(&self) -> BTreeMap<(String, String), usize> {
        let name = |number: u32| self.functions[number as usize].name.as_str();
        let mut panics = BTreeMap::new();
        for number in self.reached() {
            let function = name(number);
            if MACHINERY
                .iter()
                .any(|machinery| function.starts_with(machinery))
            {
                continue;
            }
            for (call, location) in &self.functions[number as usize].ends {
                let file = location.and_then(|address| self.file(address));
                let place = match file.as_deref().and_then(source) {
                    Some(source) if holds_inlined_code(function) => source,
                    _ => function.to_owned(),
                };
                let panic = call.map_or("abort", name).to_owned();
                *panics.entry((place, panic)).or_default() += 1;
            }
        }
        panics
    }

    /// The file of the `Location` at this address: its first field is a `&str`.
    fn file(&self, address: u32) -> Option<String> {
        let word = |address| {
            let bytes = self.bytes(address, 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let (start, length) = (word(address)?, word(address.checked_add(4)?)?);
        let file = String::from_utf8(self.bytes(start, length)?.to_vec()).ok()?;
        file.ends_with(".rs").then_some(file)
    }

    fn bytes(&self, address: u32, length: u32) -> Option<&[u8]> {
        let (start, data) = self.data.range(..=address).next_back()?;
        let from = (address - start) as usize;
        data.get(from..from.checked_add(length as usize)?)
    }
}

/// Whether a function's panics are told apart by their source files: the filter's own functions,
/// and the exports, into which the SDK's are compiled.
fn holds_inlined_code(function: &str) -> bool {
    function.starts_with("alb_oidc_filter::") || function.starts_with("proxy_on_")
}

/// The source file of a dependency as `crate::path`; `None` for a file of the filter's own. A panic
/// that a caller causes, such as `unwrap`, has the file of the caller.
fn source(file: &str) -> Option<String> {
    let (before, path) = file.rsplit_once("/src/")?;
    let folder = before.rsplit('/').next()?;
    let crate_name = match folder.rsplit_once('-') {
        Some((name, version)) if version.starts_with(|c: char| c.is_ascii_digit()) => name,
        _ => folder,
    };
    Some(format!("{}::{path}", crate_name.replace('-', "_")))
}

impl Function {
    fn follow<'a>(&mut self, operators: impl Iterator<Item = Operator<'a>>) {
        let (mut before, mut constant) = ((None, None), None);
        for operator in operators {
            let mut called = (None, None);
            let mut last = None;
            match operator {
                Operator::Call { function_index } => {
                    self.calls.insert(function_index);
                    called = (Some(function_index), constant);
                }
                Operator::I32Const { value } => last = Some(value.cast_unsigned()),
                Operator::CallIndirect { type_index, .. } => {
                    self.indirect.insert(type_index);
                }
                Operator::Unreachable => self.ends.push(before),
                _ => {}
            }
            (before, constant) = (called, last);
        }
    }
}

/// A function's name in one form for both of rustc's manglings: `<Type>::method` becomes
/// `Type::method`, a trait's method starts with its type, `::<` becomes `<`, and closures lose
/// their numbers.
fn normal(symbol: &str) -> String {
    let mut name = format!("{:#}", rustc_demangle::demangle(symbol))
        .replace("::<", "<")
        .replace("{{closure}}", "{closure}");
    while let Some(number) = name.find("{closure#") {
        let end = name[number..]
            .find('}')
            .map_or(name.len(), |end| number + end);
        name.replace_range(number + "{closure".len()..end, "");
    }
    let mut depth = 0;
    let close = name.char_indices().find_map(|(place, sign)| {
        // The `>` of `->` closes nothing.
        depth += match sign {
            '<' => 1,
            '>' if !name[..place].ends_with('-') => -1,
            _ => 0,
        };
        (depth == 0).then_some(place)
    });
    if let (true, Some(close)) = (name.starts_with('<'), close)
        && !name[..close].contains(" as ")
    {
        name.remove(close);
    }
    name.trim_start_matches(['<', '&', '[']).to_owned()
}

impl Argument {
    fn covers(&self, function: &str, panic: &str) -> bool {
        let fits = |word: &&str| match word.strip_prefix('*') {
            Some(part) => function.contains(part),
            None => function.starts_with(word),
        };
        self.of.iter().any(fits)
            && (self.by.is_empty() || self.by.iter().any(|by| panic.starts_with(by)))
    }
}

/// One line for each panic without an argument, and, for the reference toolchain's module, for each
/// argument without a panic.
fn faults(
    panics: &BTreeMap<(String, String), usize>,
    argued: &[Argument],
    is_reference: bool,
) -> Vec<String> {
    let argument = |function: &str, panic: &str| {
        argued
            .iter()
            .position(|argument| argument.covers(function, panic))
    };
    let mut used = BTreeSet::new();
    let mut faults = Vec::new();
    for ((function, panic), count) in panics {
        match argument(function, panic) {
            Some(place) => {
                used.insert(place);
            }
            None => faults.push(format!(
                "{function} may come to {panic}, {count} times, which nothing argues for"
            )),
        }
    }
    let unused = argued
        .iter()
        .enumerate()
        .filter(|(place, _)| is_reference && !used.contains(place));
    faults.extend(unused.map(|(_, argument)| {
        format!(
            "no panic is left in {:?}: {}",
            argument.of, argument.because
        )
    }));
    faults
}

/// The bytes of the code section.
fn code_section(module: &[u8]) -> &[u8] {
    const CODE: u8 = 10;
    let sections = Parser::new(0)
        .parse_all(module)
        .filter_map(|payload| payload.expect("a section").as_section());
    let range = sections
        .into_iter()
        .find_map(|(id, range)| (id == CODE).then_some(range));
    let range = range.expect("code");
    &module[range.start as usize..range.end as usize]
}

fn named_module() -> Vec<u8> {
    let path = support::repository("target/alb_oidc_filter.named.wasm");
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!(
            "no module with names at {}: {error}; run make",
            path.display()
        )
    })
}

#[test]
fn named_module_has_the_code_of_the_module() {
    let (named, module) = (
        named_module(),
        std::fs::read(support::module()).expect("the module"),
    );
    assert!(
        code_section(&named) == code_section(&module),
        "the module with names is of another build; run make"
    );
}

#[test]
fn every_reachable_panic_has_an_argument() {
    let named = named_module();
    let code = Code::read(&named);
    let panics = code.panics();
    let (reached, places) = (code.reached().len(), panics.values().sum::<usize>());
    println!(
        "{} functions, {reached} reached, {places} places to panic in {}",
        code.functions.len(),
        panics.len()
    );
    for (place, argument) in ARGUED.iter().enumerate() {
        let mine = |(function, panic): &&(String, String)| {
            ARGUED
                .iter()
                .position(|argument| argument.covers(function, panic))
                == Some(place)
        };
        let count: usize = panics
            .iter()
            .filter(|(names, _)| mine(names))
            .map(|(_, count)| count)
            .sum();
        println!("{count:5}  {}: {}", argument.of.join(" "), argument.because);
    }
    let reference =
        std::fs::read_to_string(support::repository(".ci/reference-toolchain")).expect("a file");
    let is_reference = code.compiler == reference.trim();
    println!(
        "built by rustc {}; the reference toolchain is rustc {}",
        code.compiler,
        reference.trim()
    );
    assert!(
        !code.compiler.is_empty(),
        "the module does not name its compiler"
    );
    let faults = faults(&panics, ARGUED, is_reference);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A module with this single callback, a function that panics and one that does not.
fn tiny(body: &str) -> Vec<u8> {
    let text = format!(
        r#"(module (table funcref (elem $ours::may_panic $ours::quiet))
            (func $core::panicking::panic unreachable)
            (func $ours::may_panic (param i32) call $core::panicking::panic unreachable)
            (func $ours::quiet (param i64))
            (func $callback (export "proxy_on_tick") (param i32) {body}))"#
    );
    wat::parse_str(text).expect("a module")
}

#[test]
fn finds_panics_through_calls_and_the_table() {
    for (body, found) in [
        ("", false),
        ("local.get 0 call $ours::may_panic", true),
        ("i64.const 0 i32.const 1 call_indirect (param i64)", false),
        ("i32.const 0 i32.const 0 call_indirect (param i32)", true),
    ] {
        let module = tiny(body);
        let expected: &[_] = if found {
            &[("ours::may_panic", "core::panicking::panic")]
        } else {
            &[]
        };
        let panics = Code::read(&module).panics();
        let found: Vec<_> = panics
            .keys()
            .map(|(function, panic)| (function.as_str(), panic.as_str()))
            .collect();
        assert_eq!(found, expected, "{body}");
    }
}

#[test]
fn reports_missing_and_stale_arguments() {
    let module = tiny("local.get 0 call $ours::may_panic");
    let code = Code::read(&module);
    let panics = code.panics();
    let of_reference = |argued: &[Argument]| faults(&panics, argued, true).len();
    let of_another = |argued: &[Argument]| faults(&panics, argued, false).len();
    for (argued, reference, another) in [
        (&[argued(&["ours::"], "")][..], 0, 0),
        (&[], 1, 1),
        (&[argued(&["ours::"], ""), argued(&["theirs::"], "")], 1, 0),
        (
            &[Argument {
                of: &["ours::"],
                by: &["alloc::"],
                because: "",
            }],
            2,
            1,
        ),
    ] {
        assert_eq!(
            (of_reference(argued), of_another(argued)),
            (reference, another)
        );
    }
}

#[test]
fn normalizes_names_of_both_manglings() {
    for (legacy, v0, name) in [
        (
            "_ZN5alloc7raw_vec12handle_error17h0123456789abcdefE",
            "_RNvNtCs1234_5alloc7raw_vec12handle_error",
            "alloc::raw_vec::handle_error",
        ),
        (
            "_ZN15alb_oidc_filter8identity11UserIdRules7made_of17h0123456789abcdefE",
            "_RNvMNtCs1234_15alb_oidc_filter8identityNtB2_11UserIdRules7made_of",
            "alb_oidc_filter::identity::UserIdRules::made_of",
        ),
        (
            "_ZN4core3ops8function6FnOnce9call_once28_$u7b$$u7b$closure$u7d$$u7d$17h0123456789abcdefE",
            "_RNCNvNtNtNtCs1234_4core3ops8function6FnOnce9call_onces_0",
            "core::ops::function::FnOnce::call_once::{closure}",
        ),
    ] {
        assert_eq!((normal(legacy).as_str(), normal(v0).as_str()), (name, name));
    }
    let of_trait = "_ZN58_$LT$alloc..string..String$u20$as$u20$core..fmt..Write$GT$9write_str17h0123456789abcdefE";
    assert_eq!(
        normal(of_trait),
        "alloc::string::String as core::fmt::Write>::write_str"
    );
}
