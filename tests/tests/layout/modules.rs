//! The modules of a crate, read from its first file on, without those that only tests have.

use std::fs;
use std::path::{Path, PathBuf};

use quote::ToTokens as _;
use syn::{Attribute, Item, Meta};

use crate::root;

/// A module and what is in it, without its tests.
pub(crate) struct Module {
    /// From the crate on, which has none.
    pub(crate) path: Vec<String>,
    /// From the root of the repository on.
    pub(crate) file: String,
    /// Lines of its file that are not of its tests. A module within another one's file has none of
    /// its own.
    pub(crate) lines: usize,
    pub(crate) items: Vec<Item>,
}

impl Module {
    /// All modules of the crate whose first file this is.
    pub(crate) fn read(first: &Path) -> Vec<Module> {
        let mut modules = Vec::new();
        read_file(first, first.parent().unwrap(), Vec::new(), &mut modules);
        modules
    }
}

/// `inside` is the folder of the modules of this one.
fn read_file(file: &Path, inside: &Path, path: Vec<String>, modules: &mut Vec<Module>) {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let name = file.strip_prefix(root()).unwrap_or(file).to_str().unwrap();
    let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let tests: usize = parsed.items.iter().filter(|item| is_test(item)).map(span_lines).sum();
    let place = modules.len();
    keep(parsed.items, name, inside, path, modules);
    modules[place].lines = text.lines().count() - tests;
}

/// Keeps what is not for tests, and goes on with the modules that are declared.
fn keep(items: Vec<Item>, file: &str, inside: &Path, path: Vec<String>, modules: &mut Vec<Module>) {
    let place = modules.len();
    modules.push(Module { path: path.clone(), file: file.to_owned(), lines: 0, items: Vec::new() });
    for item in items.into_iter().filter(|item| !is_test(item)) {
        match item {
            Item::Mod(declared) => {
                let name = declared.ident.to_string();
                let child = [&path[..], std::slice::from_ref(&name)].concat();
                match declared.content {
                    Some((_, items)) => keep(items, file, &inside.join(name), child, modules),
                    None => {
                        let found = find(inside, &name, &declared.attrs);
                        // A `#[path]` file has its modules beside it, as a `mod.rs` has.
                        let is_beside =
                            found.ends_with("mod.rs") || attribute_path(&declared.attrs).is_some();
                        let folder =
                            if is_beside { found.parent().unwrap().to_owned() } else { inside.join(&name) };
                        read_file(&found, &folder, child, modules);
                    }
                }
            }
            other => modules[place].items.push(other),
        }
    }
}

fn find(inside: &Path, name: &str, attributes: &[Attribute]) -> PathBuf {
    let places = match attribute_path(attributes) {
        Some(path) => vec![inside.join(path)],
        None => vec![inside.join(format!("{name}.rs")), inside.join(name).join("mod.rs")],
    };
    places.iter().find(|file| file.is_file()).unwrap_or_else(|| panic!("no module at {places:?}")).clone()
}

fn attribute_path(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    })
}

/// `#[cfg(test)]` and what is alike.
pub(crate) fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let tokens = attribute.meta.to_token_stream().to_string().replace(' ', "");
        tokens == "test" || tokens == "cfg(test)" || tokens.starts_with("cfg(all(test,")
    })
}

fn is_test(item: &Item) -> bool {
    let attributes = match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => return false,
    };
    is_for_tests(attributes)
}

fn span_lines(item: &Item) -> usize {
    use syn::spanned::Spanned as _;
    let span = item.span();
    span.end().line + 1 - span.start().line
}
