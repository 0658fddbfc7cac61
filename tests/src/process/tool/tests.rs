use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Part, TOOLS, Tool};
use crate::binary::cargo;

fn attribute(tool: &Tool) -> String {
    format!("#[cfg_attr(not(has_{}), ignore = \"{}\")]", tool.name, tool.reason())
}

/// The sources of the tests and of the harness, without this module, which says `has_` for other
/// reasons.
fn sources() -> Vec<(PathBuf, String)> {
    let mut folders =
        ["src", "tests"].map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).to_vec();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("src/process/tool") || path.ends_with("src/process/tool.rs") {
                continue;
            } else if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                sources.push((path, text));
            }
        }
    }
    sources
}

/// So nothing asks whether a tool is there in order to return early.
#[test]
fn what_is_known_of_a_tool_only_ignores_tests_and_gives_the_reason() {
    let attributes = TOOLS.each_ref().map(attribute);
    let names = TOOLS.each_ref().map(|tool| format!("has_{}", tool.name));
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            let is_about_one = line.contains("cfg_attr(") || names.iter().any(|name| line.contains(name));
            assert!(
                !is_about_one || attributes.iter().any(|attribute| line == attribute),
                "{}:{}: found {line}; allowed: {attributes:#?}",
                path.display(),
                number + 1
            );
        }
    }
}

#[test]
fn every_tool_is_needed_by_a_test() {
    let sources = sources();
    for tool in &TOOLS {
        let needs = |text: &String| text.lines().any(|line| line == attribute(tool));
        assert!(sources.iter().any(|(_, text)| needs(text)), "no test needs {}", tool.name);
        let uses = format!("tool(\"{}\")", tool.name);
        assert!(sources.iter().any(|(_, text)| text.contains(&uses)), "no test says {uses}");
    }
}

#[test]
fn no_tool_is_missing_where_ci_is_set() {
    if std::env::var_os("CI").is_some() {
        let missing: Vec<String> =
            TOOLS.iter().filter(|tool| tool.find().is_none()).map(Tool::reason).collect();
        assert!(missing.is_empty(), "CI is set, and tests are ignored: {missing:#?}");
    }
}

#[test]
fn a_part_that_is_missing_is_the_whole_tool() {
    let tool =
        Tool { name: "half", parts: &[Part::Program("sh"), Part::Program("pgsaga-none")], install: "" };
    assert_eq!(tool.find(), None);
    assert_eq!(Tool { parts: &[Part::Program("sh")], ..tool }.find().unwrap().len(), 1);
}

/// A crate with one test, which needs the made-up tool that may lie in `bin`.
fn fixture(root: &Path) {
    let write = |file: &str, text: &str| fs::write(root.join(file), text).unwrap();
    write(
        "Cargo.toml",
        "[package]\nname = \"fixture\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n",
    );
    write("Cargo.lock", "version = 4\n\n[[package]]\nname = \"fixture\"\nversion = \"0.0.0\"\n");
    write(
        "build.rs",
        &format!(
            "#[allow(dead_code)]\n#[path = {:?}]\nmod tool;\nuse tool::{{Part, Tool}};\n\nfn main() {{\n    \
             tool::tell_cargo(&[Tool {{ name: \"made_up\", parts: &[Part::Program(\"made-up\")], install: \"\" }}]);\n}}\n",
            Path::new(env!("CARGO_MANIFEST_DIR")).join("src/process/tool.rs")
        ),
    );
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::create_dir_all(root.join("src")).unwrap();
    write(
        "src/lib.rs",
        "#[test]\n#[cfg_attr(not(has_made_up), ignore = \"needs made_up: …\")]\nfn works() {}\n",
    );
}

#[test]
fn a_test_is_ignored_until_its_tool_is_installed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fixture(root);
    let path = std::env::join_paths(
        [root.join("bin")].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    )
    .unwrap();
    let said = || {
        let mut command: Command = cargo();
        command.args(["test", "--lib", "--locked", "--offline"]).current_dir(root).env("PATH", &path);
        let output = command.env_remove("CARGO_TARGET_DIR").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let ignored = "test works ... ignored, needs made_up: …";
    let made_up = root.join("bin/made-up");

    let before = said();
    assert!(before.contains(ignored) && before.contains("0 passed; 0 failed; 1 ignored"), "{before}");
    fs::write(&made_up, "").unwrap();
    let installed = said();
    assert!(installed.contains("test works ... ok"), "{installed}");
    fs::remove_file(&made_up).unwrap();
    let removed = said();
    assert!(removed.contains(ignored), "{removed}");
}
