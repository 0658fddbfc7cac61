//! How long files and functions are, and how full folders.

use std::collections::{BTreeMap, BTreeSet};

use syn::spanned::Spanned as _;
use syn::visit::Visit;
use syn::{Block, ImplItemFn, ItemFn, Signature, TraitItemFn};

use crate::File;
use crate::modules::{Module, is_for_tests};

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 60;
const ENTRIES_MAX: usize = 12;
/// Where the rule of folders is kept: sources, statements, controls. Documents have an index.
const ROOMS: [&str; 4] = ["sql", "producer", "worker", "tests"];

pub(crate) fn long_files(modules: &[Module]) -> Vec<String> {
    let long = modules.iter().filter(|module| module.lines > FILE_LINES_MAX);
    long.map(|module| format!("{}: {} lines", module.file, module.lines)).collect()
}

pub(crate) fn long_texts(files: &[File]) -> Vec<String> {
    let lengths = files.iter().map(|file| (file, file.text.lines().count()));
    lengths
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(file, lines)| format!("{}: {lines} lines", file.path))
        .collect()
}

pub(crate) fn long_functions(modules: &[Module]) -> Vec<String> {
    let mut found = Vec::new();
    for module in modules {
        let mut functions = Functions { file: &module.file, found: &mut found };
        module.items.iter().for_each(|item| functions.visit_item(item));
    }
    found
}

struct Functions<'a> {
    file: &'a str,
    found: &'a mut Vec<String>,
}

impl Functions<'_> {
    fn look(&mut self, signature: &Signature, block: &Block) {
        let (from, to) = (signature.span().start().line, block.span().end().line);
        let lines = to + 1 - from;
        if lines > FUNCTION_LINES_MAX {
            self.found.push(format!("{}:{from} {}: {lines} lines", self.file, signature.ident));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        if !is_for_tests(&function.attrs) {
            self.look(&function.sig, &function.block);
            syn::visit::visit_item_fn(self, function);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            self.look(&function.sig, &function.block);
            syn::visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_trait_item_fn(&mut self, function: &'ast TraitItemFn) {
        if let Some(block) = &function.default {
            self.look(&function.sig, block);
        }
    }
}

/// A module's file and the folder of the same name are one entry.
pub(crate) fn full_folders(files: &[File]) -> Vec<String> {
    let mut folders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in
        files.iter().filter(|file| ROOMS.iter().any(|room| file.path.starts_with(&format!("{room}/"))))
    {
        let mut path = file.path.trim_end_matches(".rs");
        while let Some((folder, name)) = path.rsplit_once('/') {
            folders.entry(folder.to_owned()).or_default().insert(name.to_owned());
            path = folder;
        }
    }
    let full = folders.iter().filter(|(_, entries)| entries.len() > ENTRIES_MAX);
    full.map(|(folder, entries)| format!("{folder}: {} entries", entries.len())).collect()
}
