//! A Prometheus of the test's own, on a free port of 127.0.0.1, which ends with the test however
//! that ends.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Stdio};

use pgsaga_tests::scene::PATIENCE;
use pgsaga_tests::worker::get;
use pgsaga_tests::{binary, eventually};
use serde_json::Value;

use crate::rules::FILE;
use crate::text::ROOT;

/// The scrape job of the workers.
pub(crate) const JOB: &str = "pgsaga";

pub(crate) struct Prometheus {
    process: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Scrapes the targets once a second and evaluates the alerts.
    pub(crate) async fn start(program: &Path, targets: &[SocketAddr]) -> Prometheus {
        let folder = tempfile::tempdir().unwrap();
        let targets: Vec<String> = targets.iter().map(|target| format!("'{target}'")).collect();
        let rules = fs::canonicalize(Path::new(ROOT).join(FILE)).unwrap();
        let config = folder.path().join("prometheus.yml");
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nrule_files: ['{}']\nscrape_configs:\n  - job_name: {JOB}\n    static_configs: [{{targets: [{}]}}]\n",
                rules.display(),
                targets.join(", ")
            ),
        )
        .unwrap();
        // Free just now.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = binary::tied(binary::pgsaga(), program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let prometheus = Prometheus { process, address, _folder: folder };
        eventually(PATIENCE, "Prometheus is ready", async || {
            get(address, "/-/ready").await.ok().filter(|(status, _)| *status == 200)
        })
        .await;
        prometheus
    }

    /// What a page of its API answers as data, or what it complains of.
    pub(crate) async fn ask(&self, page: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let parameters: Vec<String> =
            parameters.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let path = format!("/api/v1/{page}?{}", parameters.join("&"));
        let (_, body) = get(self.address, &path).await.map_err(|error| error.to_string())?;
        let mut answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        if answer["status"] == "success" {
            Ok(answer["data"].take())
        } else {
            Err(answer["error"].to_string())
        }
    }

    /// The values of a query now. A query that is refused is a failed test.
    pub(crate) async fn values(&self, expr: &str) -> Vec<f64> {
        let data =
            self.ask("query", &[("query", expr)]).await.unwrap_or_else(|error| panic!("{expr}: {error}"));
        let series = data["result"].as_array().unwrap_or_else(|| panic!("{expr}: no vector: {data}"));
        series.iter().map(|series| series["value"][1].as_str().unwrap().parse().unwrap()).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// As the query of a URL has it.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
