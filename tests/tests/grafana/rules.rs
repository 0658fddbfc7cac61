//! The alerts, as their file has them.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::text::read;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[expect(dead_code, reason = "must be there")]
    name: String,
    #[expect(dead_code, reason = "must be there")]
    interval: String,
    rules: Vec<Rule>,
}

/// One alert. Nothing that is misspelt passes for missing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    pub(crate) alert: String,
    pub(crate) expr: String,
    /// Missing: at once.
    #[serde(rename = "for")]
    #[expect(dead_code, reason = "promtool checks it")]
    lasts: Option<String>,
    /// Missing: not at all.
    #[expect(dead_code, reason = "promtool checks it")]
    keep_firing_for: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// All of `grafana/alerts/pgsaga.yml`.
pub(crate) fn rules() -> Vec<Rule> {
    let file: File = serde_saphyr::from_str(&read(FILE)).unwrap_or_else(|error| panic!("{FILE}: {error}"));
    file.groups.into_iter().flat_map(|group| group.rules).collect()
}

/// Where they are.
pub(crate) const FILE: &str = "grafana/alerts/pgsaga.yml";
