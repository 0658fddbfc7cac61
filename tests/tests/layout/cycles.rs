//! Imports between the modules of a crate. A module and those inside it are one room, so what
//! counts is who imports whom among the modules of the same parent, each with all that is inside
//! it: no cycle of files, and none of folders.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::{Item, UseTree};

use crate::modules::Module;

type Path = Vec<String>;

/// What each module imports under a name: `use crate::a::B` and `pub use a::B` are both `B`.
type Names = BTreeMap<(Path, String), Path>;

/// For each parent, each of its modules that is in a cycle, with the neighbours in it that it
/// imports.
pub(crate) fn of(modules: &[Module]) -> Vec<String> {
    let crate_name = modules[0].file.split("/src").next().unwrap();
    let mut graphs: BTreeMap<Path, BTreeMap<String, BTreeMap<String, String>>> = BTreeMap::new();
    for (from, to) in edges(modules) {
        let shared = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
        // Of a module and one inside it there is nothing to say.
        let (Some(one), Some(other)) = (from.get(shared), to.get(shared)) else { continue };
        let because = format!("{} uses {}", from.join("::"), to.join("::"));
        let graph = graphs.entry(from[..shared].to_vec()).or_default();
        graph.entry(one.clone()).or_default().entry(other.clone()).or_insert(because);
    }
    let mut found = Vec::new();
    for (parent, graph) in &graphs {
        for (module, imports) in graph {
            let back: Vec<&str> = imports
                .iter()
                .filter(|(import, _)| reaches(graph, import, module))
                .map(|(_, because)| because.as_str())
                .collect();
            if !back.is_empty() {
                let name = [&parent[..], std::slice::from_ref(module)].concat().join("::");
                found.push(format!("{crate_name}: {name}: {}", back.join(", ")));
            }
        }
    }
    found
}

fn reaches(graph: &BTreeMap<String, BTreeMap<String, String>>, from: &str, to: &str) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(module) = open.pop() {
        if module == to {
            return true;
        }
        if seen.insert(module) {
            open.extend(graph.get(module).into_iter().flatten().map(|(import, _)| import.as_str()));
        }
    }
    false
}

/// Which module imports which other.
fn edges(modules: &[Module]) -> BTreeSet<(Path, Path)> {
    let known: BTreeSet<&Path> = modules.iter().map(|module| &module.path).collect();
    let names = names(modules, &known);
    let mut edges = BTreeSet::new();
    for module in modules {
        for item in &module.items {
            let mut paths = Vec::new();
            collect(item.to_token_stream(), &module.path, &mut paths);
            for path in paths {
                edges.insert((module.path.clone(), owner(&path, &known, &names, 0)));
            }
        }
    }
    edges
}

/// The module in which what a path names is written: names that others import from elsewhere are
/// followed.
fn owner(path: &[String], known: &BTreeSet<&Path>, names: &Names, depth: usize) -> Path {
    let mut module: Path = Vec::new();
    for (place, name) in path.iter().enumerate() {
        let inside = [&module[..], std::slice::from_ref(name)].concat();
        if known.contains(&inside) {
            module = inside;
        } else if let Some(elsewhere) = names.get(&(module.clone(), name.clone())).filter(|_| depth < 8) {
            return owner(&[&elsewhere[..], &path[place + 1..]].concat(), known, names, depth + 1);
        } else {
            break;
        }
    }
    module
}

fn names(modules: &[Module], known: &BTreeSet<&Path>) -> Names {
    let mut names = Names::new();
    for module in modules {
        for item in &module.items {
            if let Item::Use(item) = item {
                note(&item.tree, &mut Vec::new(), module, known, &mut names);
            }
        }
    }
    names
}

fn note(tree: &UseTree, before: &mut Path, module: &Module, known: &BTreeSet<&Path>, names: &mut Names) {
    let mut keep = |name: String, path: Path| {
        if let Some(path) = absolute(&path, module, known) {
            names.insert((module.path.clone(), name), path);
        }
    };
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            note(&path.tree, before, module, known, names);
            before.pop();
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| note(tree, before, module, known, names)),
        UseTree::Name(name) => {
            keep(name.ident.to_string(), [&before[..], &[name.ident.to_string()]].concat())
        }
        UseTree::Rename(name) => {
            keep(name.rename.to_string(), [&before[..], &[name.ident.to_string()]].concat())
        }
        UseTree::Glob(_) => {}
    }
}

/// A path from the crate on; none where it leads out of it.
fn absolute(path: &[String], module: &Module, known: &BTreeSet<&Path>) -> Option<Path> {
    let mut start = match path.first()?.as_str() {
        "crate" => Vec::new(),
        "self" | "super" => module.path.clone(),
        first => {
            let child = [&module.path[..], &[first.to_owned()]].concat();
            return known.contains(&child).then(|| [&module.path[..], path].concat());
        }
    };
    let supers = path.iter().take_while(|name| *name == "super").count();
    start.truncate(start.len().saturating_sub(supers));
    let skip = supers.max(1);
    Some([&start[..], &path[skip..]].concat())
}

/// Every path of `crate::…` and `super::…`, also in macros, from the crate on.
fn collect(tokens: TokenStream, module: &[String], paths: &mut Vec<Path>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut place = 0;
    while let Some(token) = tokens.get(place) {
        place += 1;
        match token {
            TokenTree::Group(group) => collect(group.stream(), module, paths),
            TokenTree::Ident(ident)
                if (ident == "crate" || ident == "super") && is_path(&tokens[place..]) =>
            {
                let mut start = if ident == "crate" { Vec::new() } else { module.to_vec() };
                if ident == "super" {
                    start.pop();
                }
                place += path_end(&tokens[place..], start, paths);
            }
            _ => {}
        }
    }
}

fn is_path(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [TokenTree::Punct(one), TokenTree::Punct(two), ..] if one.as_char() == ':' && two.as_char() == ':')
}

/// Reads on after a path's beginning, through the groups of a `use`. Returns how many tokens it
/// took.
fn path_end(tokens: &[TokenTree], mut path: Path, paths: &mut Vec<Path>) -> usize {
    let mut place = 0;
    while is_path(&tokens[place..]) {
        match tokens.get(place + 2) {
            Some(TokenTree::Ident(ident)) if ident == "super" => drop(path.pop()),
            Some(TokenTree::Ident(ident)) if ident == "self" => {}
            Some(TokenTree::Ident(ident)) => path.push(ident.to_string()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                let is_comma =
                    |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',');
                for part in inner.split(is_comma).filter(|part| !part.is_empty()) {
                    let mut start = path.clone();
                    if let TokenTree::Ident(ident) = &part[0]
                        && ident != "self"
                    {
                        start.push(ident.to_string());
                    }
                    path_end(&part[1..], start, paths);
                }
                return place + 3;
            }
            _ => break,
        }
        place += 3;
    }
    paths.push(path);
    place
}
