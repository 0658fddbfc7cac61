//! The dashboards, as their files have them.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::text::ROOT;

/// Everything that is written about one board.
pub(crate) struct Board {
    /// The file's name, without its ending.
    pub(crate) file: String,
    pub(crate) json: Value,
}

/// What a panel asks.
pub(crate) struct Query<'a> {
    pub(crate) panel: &'a Value,
    pub(crate) ref_id: &'a str,
    pub(crate) expr: &'a str,
}

/// All of `grafana/dashboards`, by name.
pub(crate) fn boards() -> Vec<Board> {
    let folder = Path::new(ROOT).join("grafana/dashboards");
    let mut boards: Vec<Board> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let json = serde_json::from_str(&fs::read_to_string(&path).unwrap())
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            Board { file: path.file_stem().unwrap().to_str().unwrap().to_owned(), json }
        })
        .collect();
    boards.sort_by(|a, b| a.file.cmp(&b.file));
    boards
}

impl Board {
    pub(crate) fn uid(&self) -> &str {
        self.json["uid"].as_str().unwrap()
    }

    /// All but the rows, which only hold a title.
    pub(crate) fn panels(&self) -> impl Iterator<Item = &Value> {
        self.json["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row")
    }

    pub(crate) fn queries(&self) -> impl Iterator<Item = Query<'_>> {
        self.panels().flat_map(|panel| {
            let targets = panel["targets"].as_array().unwrap();
            targets.iter().map(move |target| Query {
                panel,
                ref_id: target["refId"].as_str().unwrap(),
                expr: target["expr"].as_str().unwrap(),
            })
        })
    }

    /// Where its links and those of its panels lead.
    pub(crate) fn links(&self) -> Vec<&str> {
        let own = self.json["links"].as_array().unwrap().iter();
        let panels = self.panels().filter_map(|panel| panel["links"].as_array()).flatten();
        own.chain(panels).map(|link| link["url"].as_str().unwrap()).collect()
    }
}

/// How a panel is called in a message.
pub(crate) fn title(panel: &Value) -> &str {
    panel["title"].as_str().unwrap()
}
