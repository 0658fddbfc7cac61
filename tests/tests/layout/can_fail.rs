//! Each check finds what is broken for it, and nothing in what is well.

use std::fs;

use crate::modules::Module;
use crate::{File, crates, cycles, sizes, words};

/// A crate of these files, the first of which is `lib.rs`.
fn krate(files: &[(&str, &str)]) -> Vec<Module> {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join("src").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    Module::read(&folder.path().join("src").join(files[0].0))
}

fn file(path: &str, text: &str) -> File {
    File { path: path.to_owned(), text: text.to_owned() }
}

/// The names of the modules that are in a cycle.
fn cycle(files: &[(&str, &str)]) -> Vec<String> {
    let found = cycles::of(&krate(files));
    found.iter().map(|line| line.split(": ").nth(1).unwrap().to_owned()).collect()
}

#[test]
fn two_modules_that_import_each_other_are_a_cycle() {
    let a = ("a.rs", "use crate::b::B;\npub struct A(B);");
    let lib = ("lib.rs", "mod a;\nmod b;\nmod c;");
    let c = ("c.rs", "use crate::{a::A, b};\nfn f(_: A) { b::g() }");
    assert_eq!(cycle(&[lib, a, ("b.rs", "pub struct B;"), c]), Vec::<String>::new());
    for back in [
        "use super::a::A;",
        "use crate::{a, x};",
        "fn f() { crate::a::f() }",
        "fn f() { println!(\"{}\", crate::a::F); }",
        "fn f(_: impl Fn(&super::a::A)) {}",
    ] {
        assert_eq!(cycle(&[lib, a, ("b.rs", back), c]), ["a", "b"], "{back}");
    }
}

#[test]
fn a_cycle_of_folders_is_one_though_no_two_files_import_each_other() {
    let files = [
        ("lib.rs", "mod claim;\nmod settle;"),
        ("claim.rs", "mod lanes;\nmod rows;"),
        ("claim/lanes.rs", "use crate::settle::answer::Answer;"),
        ("claim/rows.rs", ""),
        ("settle.rs", "mod answer;\nmod group;"),
        ("settle/answer.rs", ""),
        ("settle/group.rs", "use crate::claim::rows::Row;"),
    ];
    assert_eq!(cycle(&files), ["claim", "settle"]);
    let mut down = files;
    down[6].1 = "use super::answer::Answer;";
    assert_eq!(cycle(&down), Vec::<String>::new());
}

#[test]
fn a_cycle_through_a_name_that_the_crate_passes_on_is_found() {
    let lib = "mod a;\nmod b;\npub use a::A;\nuse b::{B as Renamed, C};";
    let files = |b| [("lib.rs", lib), ("a.rs", "use crate::Renamed;"), ("b.rs", b)];
    assert_eq!(cycle(&files("use super::A;")), ["a", "b"]);
    assert_eq!(cycle(&files("use std::fmt;")), Vec::<String>::new());
}

#[test]
fn what_only_tests_import_is_no_cycle() {
    let tests = "#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n#[cfg(test)]\nuse crate::a::A;";
    assert_eq!(
        cycle(&[("lib.rs", "mod a;\nmod b;"), ("a.rs", "use crate::b::B;"), ("b.rs", tests)]),
        Vec::<String>::new()
    );
}

#[test]
fn a_crate_that_imports_upwards_or_has_no_room_is_found() {
    let edge = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let well =
        [edge("pgsaga", "pgsaga-worker"), edge("pgsaga-worker", "pgsaga-plan"), edge("pgsaga-plan", "")];
    assert_eq!(crates::imports(&well), Vec::<String>::new());
    let wrong = [
        edge("pgsaga-plan", "pgsaga-sql"),
        edge("pgsaga-participant", "pgsaga-producer"),
        edge("pgsaga-utils", ""),
    ];
    assert_eq!(
        crates::imports(&wrong),
        [
            "pgsaga-plan → pgsaga-sql",
            "pgsaga-participant → pgsaga-producer",
            "pgsaga-utils → (no room for it)"
        ]
    );
}

#[test]
fn every_crate_and_its_first_files_are_found() {
    let edges = crates::edges();
    for crate_name in ["pgsaga-sql", "pgsaga-producer", "pgsaga-worker", "pgsaga-tests"] {
        assert!(edges.contains(&(crate_name.to_owned(), String::new())), "{crate_name}: {edges:?}");
    }
    assert!(edges.contains(&("pgsaga-producer".to_owned(), "pgsaga-sql".to_owned())), "{edges:?}");
    let modules: Vec<Module> = crates::targets().iter().flat_map(|target| Module::read(target)).collect();
    let named = |file: &str| modules.iter().any(|module| module.file == file && module.lines > 0);
    assert!(named("sql/src/lib.rs") && named("producer/src/lib.rs"));
    assert!(modules.len() > 100, "only {} modules", modules.len());
}

#[test]
fn a_package_is_found_by_its_whole_name() {
    let tree = "pgsaga-plan v0.4.0 (/work)\ntokio-util v0.7.0\nserde v1.0.0 (*)\n";
    assert_eq!(crates::in_tree(tree, &["tokio", "serde"]), ["serde"]);
}

#[test]
fn a_long_function_and_a_long_file_are_found_and_tests_do_not_count() {
    let function =
        |name: &str, lines: usize| format!("fn {name}() {{\n{}}}\n", "    f();\n".repeat(lines - 2));
    let text = [
        function("short", 60),
        function("long", 61),
        format!("impl X {{\n{}}}\n", function("method", 61)),
        format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function("test", 250)),
    ]
    .concat();
    let modules = krate(&[("lib.rs", &text)]);
    let found = sizes::long_functions(&modules);
    assert!(
        found.len() == 2 && found[0].ends_with("long: 61 lines") && found[1].ends_with("method: 61 lines"),
        "{found:?}"
    );
    assert_eq!(sizes::long_files(&modules), Vec::<String>::new());
    let text = "const A: u8 = 0;\n".repeat(401);
    let found = sizes::long_files(&krate(&[("lib.rs", &text)]));
    assert!(found.len() == 1 && found[0].ends_with("401 lines"), "{found:?}");
    assert_eq!(sizes::long_texts(&[file("tests/a.rs", &text)]).len(), 1);
}

#[test]
fn a_full_folder_is_found() {
    let named = |name: &str| file(&format!("worker/src/{name}"), "");
    let mut files: Vec<File> = (0..12).map(|n| named(&format!("m{n}.rs"))).collect();
    files.extend([named("m1/inner.rs"), file("docs/a.md", "")]);
    assert_eq!(sizes::full_folders(&files), Vec::<String>::new());
    files.push(named("m12/inner.rs"));
    assert_eq!(sizes::full_folders(&files), ["worker/src: 13 entries"]);
}

#[test]
fn a_wide_comment_is_found() {
    let wide =
        |start: &str, columns: usize| file("a.rs", &format!("{start}{}", "ä".repeat(columns - start.len())));
    for start in ["// ", "    /// ", "-- "] {
        assert_eq!(words::wide_comments(&[wide(start, 100)]), Vec::<String>::new());
        assert_eq!(words::wide_comments(&[wide(start, 101)]).len(), 1, "{start}");
    }
    assert_eq!(words::wide_comments(&[wide("let a = b", 120)]), Vec::<String>::new());
}

#[test]
fn a_literal_of_a_status_is_found_also_in_a_macro() {
    let text = "/// `stuck`\nfn f() { g(\"failed\"); println!(\"{}\", \"stuck\"); h(\"is stuck\") }\n#[cfg(test)]\nmod tests { const A: &str = \"failed\"; }";
    assert_eq!(words::statuses(&krate(&[("lib.rs", text)])).len(), 2);
}

#[test]
fn a_citation_is_found() {
    let races = concat!("RA", "CES");
    for (line, count) in [
        (format!("// see {races} 7"), 1),
        (format!("({races}.md)"), 1),
        (format!("T{races}"), 0),
        ("docs/races.md, R7".to_owned(), 0),
        (concat!("DES", "IGN.md §5").to_owned(), 1),
    ] {
        assert_eq!(words::citations(&[file("a.md", &line)]).len(), count, "{line}");
    }
}
