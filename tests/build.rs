//! Tells the tests which outside tools there are: `has_NAME` is set for each tool of
//! `src/process/tool.rs` that was found.

#[allow(dead_code, unreachable_pub, clippy::panic, reason = "the harness needs it")]
#[path = "src/process/tool.rs"]
mod tool;

fn main() {
    println!("cargo::rerun-if-changed=src/process/tool.rs");
    println!("cargo::rerun-if-changed=build.rs");
    tool::tell_cargo(&tool::TOOLS);
}
