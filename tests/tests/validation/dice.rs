//! Random input.

use pgsaga_sql::contract::STEP_KEYS;
use pgsaga_tests::{setting, sized};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// The seed of this run: `SEED`, else a new one; printed.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("SEED")
        .ok()
        .map_or_else(|| u64::from(std::process::id()), |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    seed
}

/// How many inputs: `ROLLS`, else 1,000, or 3,000 where `TEST_SIZE=full`.
pub(crate) fn rolls() -> usize {
    setting("ROLLS", sized(1_000, 3_000)) as usize
}

/// ChaCha8, whose stream for a seed is the same on every machine and in every release of the crate.
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(ChaCha8Rng::seed_from_u64(seed))
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }

    pub(crate) fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    fn some(&mut self, count: usize, choices: &[&str]) -> String {
        (0..self.below(count + 1)).map(|_| self.of(choices)).collect()
    }

    pub(crate) fn url(&mut self) -> String {
        if self.below(5) == 0 {
            return self.named_url();
        }
        let scheme =
            self.of(&["http://", "https://", "http://", "https://", "http:/", "HTTP://", "ftp://", ""]);
        let host = match self.below(6) {
            0 => format!(
                "[{}]",
                self.some(
                    9,
                    &["1", "::", ":", "abcd", "0", "12345", "1:", "2:", "f:", "1.2.3.4", ":1", "g", "%"]
                )
            ),
            1 => {
                let mut part = || {
                    self.of(&["0", "1", "10", "255", "256", "01", "0x1", "a", "", "199", "249", "300"])
                        .to_owned()
                };
                [part(), part(), part(), part()].join(".")
            }
            _ => self.some(
                5,
                &["a", "A", "0", "1", "x", "X", "0x", "-", "_", ".", ".", "b", "0xg", "09", "é", "@", "%41"],
            ),
        };
        let port = match self.below(4) {
            0 => format!(":{}", self.some(5, &["0", "1", "5", "6", "65535", "65536", "9", "+", "-", "a"])),
            _ => String::new(),
        };
        let rest = match self.below(2) {
            0 => format!(
                "{}{}",
                self.of(&["/", "?", ""]),
                self.some(
                    3,
                    &[
                        "a",
                        "/",
                        "?",
                        "#",
                        "\\",
                        " ",
                        "é",
                        "%zz",
                        "{\"",
                        "|^`",
                        "@",
                        "\u{7f}",
                        "\n",
                        "[]",
                        "..",
                        "&=",
                        "&gid=",
                        ";op",
                        "branch_id",
                        "trans_type=",
                        "op"
                    ]
                )
            ),
            _ => String::new(),
        };
        format!("{scheme}{host}{port}{rest}")
    }

    pub(crate) fn named_url(&mut self) -> String {
        let scheme =
            self.of(&["participant:", "participant:", "participant:", "participant:", "Participant:"]);
        let name = match self.below(8) {
            0 => "a".repeat(62 + self.below(4)),
            _ => self.some(4, &["a", "z", "0", "9", "-", "_", ".", "stock", "A", ":", "@", "é", "%2e"]),
        };
        let slash = self.of(&["/", "/", "/", "/", "/", "//", "?", ""]);
        let path = self
            .some(4, &["a", "Z", "0", "/", ".", "..", "~", ":", "@", "-", "_", "?", "=", "%2e", "\\", "#"]);
        let query = match self.below(3) {
            0 => format!(
                "?{}",
                self.some(
                    4,
                    &[
                        "a",
                        "=",
                        "&",
                        ",",
                        ";",
                        "+",
                        "/",
                        "?",
                        ".",
                        "..",
                        "%",
                        "$",
                        " ",
                        "gid",
                        "op=",
                        "&branch_id"
                    ]
                )
            ),
            _ => String::new(),
        };
        format!("{scheme}{name}{slash}{path}{query}")
    }

    fn string(&mut self) -> String {
        let text = self.some(
            4,
            &[
                "a", "B", "0", "1", "02", ".", ":", "-", "_", "/", " ", "é", "\n", "\"", "\\", "\u{1}",
                "\u{7f}", "😀", "\t",
            ],
        );
        // Serde's text, or the same in escapes.
        match self.below(4) {
            0 => format!(
                "\"{}\"",
                text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect::<String>()
            ),
            _ => serde_json::to_string(&text).unwrap(),
        }
    }

    fn value(&mut self, depth: usize) -> String {
        let space = self.of(&["", "", " ", "\n\t"]);
        match self.below(if depth > 3 { 5 } else { 7 }) {
            0 => self.of(&["null", "true", "false"]).to_owned(),
            1 | 2 => self
                .of(&[
                    "0",
                    "-0",
                    "1",
                    "-1",
                    "1.50",
                    "1e3",
                    "1E-3",
                    "0.001",
                    "0.0009",
                    "86400",
                    "86400.000",
                    "86400.1",
                    "3600",
                    "3600.01",
                    "1000000",
                    "1e6",
                    "1000001",
                    "12e-1",
                    "30e-1",
                    "-0.0e2",
                    "1e70",
                    "1e-70",
                    "123456789012345678901234567890",
                ])
                .to_owned(),
            3 | 4 => self.string(),
            5 => format!("[{space}{}{space}]", self.values(depth + 1).join(",")),
            _ => {
                let entries: Vec<_> = self
                    .values(depth + 1)
                    .into_iter()
                    .map(|value| format!("{}{space}:{value}", self.string()))
                    .collect();
                format!("{{{}}}", entries.join(","))
            }
        }
    }

    fn values(&mut self, depth: usize) -> Vec<String> {
        (0..self.below(4)).map(|_| self.value(depth)).collect()
    }

    fn step(&mut self) -> String {
        if self.below(40) == 0 {
            return self.value(0);
        }
        let action = match self.below(3) {
            0 => self.url(),
            _ => self.of(&["", "http://a", "https://a.b/c", "http://1.2.3.4/", "participant:a/b"]).to_owned(),
        };
        let mut entries = vec![format!("\"action\":{}", serde_json::to_string(&action).unwrap())];
        for _ in 0..self.below(5) {
            let often = ["name", "name", "after", "\\u006eame", "x"];
            let keys: Vec<&str> = STEP_KEYS.iter().map(|key| key.name).chain(often).collect();
            let key = self.of(&keys);
            let value = match (key, self.below(3)) {
                (_, 0) => self.value(0),
                ("name", _) => format!("\"{}\"", self.of(&["01", "02", "a", "b", "3", "03"])),
                ("after", _) => self.names(&["01", "02", "a", "b", "3", "03"]),
                ("pivot", _) => self.of(&["true", "false", "false"]).to_owned(),
                ("payload" | "compensate_payload", 2) => self.referring(0, &["01", "02", "a", "b"]),
                ("action" | "compensate", _) => serde_json::to_string(&self.url()).unwrap(),
                ("headers", _) => {
                    let mut entry = || {
                        format!(
                            "{}:{}",
                            self.of(&[
                                "\"a\"",
                                "\"Te\"",
                                "\"Accept-encoding\"",
                                "\"X-1\"",
                                "\"\"",
                                "\"a b\"",
                                "\"bb\""
                            ]),
                            self.string()
                        )
                    };
                    format!("{{{},{}}}", entry(), entry())
                }
                ("payload" | "compensate_payload", 1) => {
                    let depth = 62 + self.below(4);
                    format!(
                        "{}{}{}",
                        "{\"a\":".repeat(depth - 1),
                        self.of(&["[]", "{}", "1", "[1]"]),
                        "}".repeat(depth - 1)
                    )
                }
                _ => self.value(2),
            };
            entries.push(format!("\"{key}\":{value}"));
        }
        format!("{{{}}}", entries.join(", "))
    }

    pub(crate) fn steps(&mut self) -> String {
        let count = 1 + self.below(4);
        format!("[{}]", (0..count).map(|_| self.step()).collect::<Vec<_>>().join(","))
    }

    /// An array of some of these, mostly each once.
    fn names(&mut self, names: &[&str]) -> String {
        let twice = self.below(8) == 0;
        let mut some = Vec::new();
        for _ in 0..self.below(4) {
            let name = self.of(names);
            if twice || !some.contains(&name) {
                some.push(name);
            }
        }
        serde_json::to_string(&some).unwrap()
    }

    /// A payload with references, mostly well-formed, to these.
    fn referring(&mut self, depth: usize, names: &[&str]) -> String {
        match self.below(if depth > 3 { 4 } else { 7 }) {
            0 => self.of(&["1", "\"$from\"", "{\"from\":\"x\"}", "[]", "{}"]).to_owned(),
            1 if self.below(12) == 0 => {
                let path = self.of(&["5", "\"x\"", "\"/~\"", "\"/~3\"", "null"]);
                format!("{{\"$from\":\"{}\",\"path\":{path}}}", self.of(names))
            }
            2 if self.below(12) == 0 => self
                .of(&[
                    "{\"$from\":5}",
                    "{\"$from\":\"a\",\"x\":1}",
                    "{\"$literal\":1,\"x\":1}",
                    "{\"$from\":\"a\",\"$literal\":1}",
                ])
                .to_owned(),
            1..=3 => {
                let key = self.of(&["$from", "$from", "\\u0024from"]);
                let path = self.of(&["", "", ",\"path\":\"\"", ",\"path\":\"/a/~0b~1\"", ",\"path\":\"/\""]);
                format!("{{\"{key}\":\"{}\"{path}}}", self.of(names))
            }
            4 => format!("{{\"$literal\":{}}}", self.referring(depth + 1, &["x", "a", "nobody"])),
            5 => format!("[{},{}]", self.referring(depth + 1, names), self.referring(depth + 1, names)),
            _ => {
                let (one, other) = (self.referring(depth + 1, names), self.referring(depth + 1, names));
                format!(
                    "{{\"{}\":{one},\"{}\":{other}}}",
                    self.of(&["bb", "a", "ccc"]),
                    self.of(&["b", "a", "B"])
                )
            }
        }
    }

    /// The columns of a saga of 1 to 6 steps in some order, mostly without a cycle, well in all
    /// else.
    pub(crate) fn ordered_saga(&mut self) -> String {
        let names = ["a", "b", "c", "d", "e", "f"];
        let names = &names[..1 + self.below(names.len())];
        let mut line: Vec<_> = names.to_vec();
        for place in (1..line.len()).rev() {
            line.swap(place, self.below(place + 1));
        }
        let (sequential, pivot) = (self.below(4) == 0, (self.below(3) == 0).then(|| self.below(names.len())));
        let mut steps = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let mut step = format!("{{\"name\":\"{name}\",\"action\":\"\"");
            let earlier: Vec<_> = line.iter().take_while(|earlier| *earlier != name).copied().collect();
            match self.below(if sequential { 2 } else { 5 }) {
                0 => {}
                1 => {
                    let previous = index.checked_sub(1).map(|previous| names[previous]);
                    step.push_str(&format!(
                        ",\"after\":{}",
                        serde_json::to_string(previous.as_slice()).unwrap()
                    ));
                }
                _ if self.below(30) == 0 => {
                    step.push_str(&format!(",\"after\":{}", self.names(&["a", "b", "c", "x"])))
                }
                2 if pivot.is_some_and(|pivot| pivot < index) => {
                    step.push_str(&format!(",\"after\":[\"{}\"]", names[pivot.unwrap()]));
                }
                _ if earlier.is_empty() => step.push_str(",\"after\":[]"),
                _ => step.push_str(&format!(",\"after\":{}", self.names(&earlier))),
            }
            if pivot == Some(index) || pivot.is_some() && self.below(30) == 0 {
                step.push_str(",\"pivot\":true");
            }
            if pivot.is_none_or(|pivot| index <= pivot || self.below(10) == 0) && self.below(2) == 0 {
                step.push_str(",\"compensate\":\"\"");
            }
            let listed: Vec<_> = if sequential { names[..index].to_vec() } else { earlier };
            if !listed.is_empty() && self.below(4) == 0 {
                step.push_str(&format!(",\"payload\":{}", self.referring(1, &listed)));
            }
            if self.below(6) == 0 {
                step.push_str(&format!(",\"compensate_payload\":{}", self.referring(2, &[name])));
            }
            steps.push(step + "}");
        }
        let mapping = match self.below(4) {
            0 => format!(",\"result_mapping\":{}", self.referring(1, names)),
            _ => String::new(),
        };
        format!("{{\"steps\":[{}]{mapping}}}", steps.join(","))
    }
}
