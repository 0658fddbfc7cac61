use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const LOCK: &str = "version = 4\n\n[[package]]\nname = \"fixture\"\nversion = \"0.0.0\"\n";

const SOURCE: &str = r#"//! A product of one rule.

// control: no-rule
/// It has no other.
pub const RULES: u8 = 1;

pub fn add(a: u8, b: u8) -> u8 {
    // control: sum
    a.saturating_add(b)
}

#[cfg(test)]
mod tests {
    use super::add;

    #[test]
    fn a_sum_does_not_overflow() {
        assert_eq!(add(250, 10), 255, "it overflows");
    }

    #[test]
    fn a_sum_is_awaited() {
        while add(1, 1) != 2 {
            std::thread::yield_now();
        }
    }
}
"#;

/// One control of the fixture.
fn control(tag: &str, change: &str, test: &str, says: &str) -> String {
    format!(
        "[[control]]\nname = \"control\"\ntag = \"{tag}\"\nbreak = {change}\nbinary = \"unit\"\n\
         test = '{test}'\nsays = '{says}'\n"
    )
}

/// Runs the command for a workspace of one small crate, whose list has this control.
fn run(control: &str) -> Output {
    run_with(SOURCE, control)
}

fn run_with(source: &str, control: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(
        &root.join("Cargo.toml"),
        "[package]\nname = \"fixture\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n",
    );
    write(&root.join("Cargo.lock"), LOCK);
    write(&root.join(".gitignore"), "/target\n");
    write(&root.join("src/lib.rs"), source);
    write(&root.join("tests/controls/01_sum.toml"), control);
    assert!(Command::new("git").args(["init", "--quiet"]).current_dir(root).status().unwrap().success());
    let output = Command::new(env!("CARGO_BIN_EXE_controls"))
        .arg("--root")
        .arg(root)
        .args(["--test-seconds-max", "5"])
        .env_remove("CARGO_TARGET_DIR")
        .output()
        .unwrap();
    assert_eq!(
        fs::read_to_string(root.join("src/lib.rs")).unwrap(),
        source,
        "the working tree is left alone"
    );
    let copied = root.join("target/controls/source/src/lib.rs");
    assert_eq!(fs::read_to_string(copied).unwrap(), source, "the copy is whole again");
    output
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Both streams, for a comparison and for a person who looks why.
fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout))
}

const WRAPS: &str = "{ swap = ['saturating_add', 'wrapping_add'] }";
const NO_CHANGE: &str = "{ value = '2' }";

#[test]
fn a_rule_whose_test_goes_red_is_well() {
    let output = run(&control("sum", WRAPS, "a_sum_does_not_overflow", "it overflows"));
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("1 of 1 controls are red"), "{said}");
}

#[test]
fn a_control_that_stays_green_fails() {
    let output = run(&control("no-rule", NO_CHANGE, "a_sum_does_not_overflow", "it overflows"));
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("stayed green") && said.contains("0 of 1 controls are red"), "{said}");
}

#[test]
fn whatever_else_is_not_red_fails_too() {
    for (tag, change, test, says, verdict) in [
        ("sum", "{ becomes = 'a.add_up(b)' }", "a_sum_does_not_overflow", "it overflows", "did not compile"),
        ("sum", WRAPS, "a_sum_does_not_overflow", "it is too small", "another reason"),
        ("product", WRAPS, "a_sum_does_not_overflow", "it overflows", "found in no source of the product"),
        (
            "sum",
            "{ cut = 'checked' }",
            "a_sum_does_not_overflow",
            "it overflows",
            "found \"checked\" 0 times in the piece",
        ),
        ("sum", "{ becomes = 'a.saturating_sub(b)' }", "a_sum_is_awaited", "", "hung"),
        ("sum", WRAPS, "sum_does_not_overflow", "it overflows", "did not run"),
    ] {
        let output = run(&control(tag, change, test, says));
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(verdict), "{verdict}: {said}");
    }
}

/// What is red already would be red without the rule as well.
#[test]
fn a_test_that_fails_before_anything_is_broken_fails() {
    let source = SOURCE.replace("saturating_add", "wrapping_add");
    let output = run_with(&source, &control("no-rule", NO_CHANGE, "a_sum_does_not_overflow", "it overflows"));
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("red without any change"), "{said}");
}
