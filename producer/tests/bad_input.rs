//! The crate says about every input what the table says.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use pgsaga_producer::Definition;

mod cases;
use cases::{Input, check_steps};

#[test]
fn the_crate_says_what_the_table_says() {
    let mut wrong = Vec::new();
    for case in cases::all() {
        let said: Vec<_> = match &case.input {
            Input::Steps(text) if text.trim_start().starts_with('{') => continue,
            Input::Steps(text) => vec![check_steps(text), Definition::from_json(text)],
            Input::Saga(text) => vec![Definition::from_json(text)],
        };
        for said in said {
            let said = said.err().map(|invalid| invalid.to_string());
            if said != case.error {
                wrong.push(format!("{}\n  said     {said:?}\n  expected {:?}", case.name, case.error));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
