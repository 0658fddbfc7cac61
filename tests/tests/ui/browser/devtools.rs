//! A headless Chromium, spoken to in its DevTools protocol. A handful of its methods, as JSON:
//! crates with all of the protocol as types take minutes to build.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::SplitSink;
use futures_util::{SinkExt as _, StreamExt as _};
use pgsaga_tests::scene::PATIENCE;
use pgsaga_tests::{binary, eventually};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

type Sink = SplitSink<WebSocketStream<MaybeTlsStream<TcpStream>>, Message>;
type Answered = Result<Value, String>;

/// One that ends with the test.
pub(crate) struct Browser {
    child: Child,
    sink: tokio::sync::Mutex<Sink>,
    heard: Arc<Heard>,
    ids: AtomicU64,
    /// Of its one page.
    session: String,
    _profile: tempfile::TempDir,
}

#[derive(Default)]
struct Heard {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answered>>>,
    events: Mutex<Vec<Value>>,
}

impl Browser {
    /// Starts it, with an empty page of a desk's size.
    pub(crate) async fn start(chromium: &Path) -> Browser {
        let profile = tempfile::tempdir().unwrap();
        let mut command = binary::tied(binary::pgsaga(), chromium);
        command
            // As root there is no sandbox; it only ever sees the page under test.
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args(["--hide-scrollbars", "--force-color-profile=srgb", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let url = listens_at(&mut child).await;
        let (socket, _) = connect_async(url.as_str()).await.unwrap();
        let (sink, mut stream) = socket.split();
        let heard = Arc::new(Heard::default());
        let hears = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Some(Ok(message)) = stream.next().await {
                let Ok(text) = message.into_text() else { continue };
                let Ok(value) = serde_json::from_str::<Value>(&text) else { continue };
                match value["id"].as_u64() {
                    Some(id) => {
                        if let Some(waits) = hears.waiting.lock().unwrap().remove(&id) {
                            let error = value.get("error").map(Value::to_string);
                            drop(waits.send(error.map_or_else(|| Ok(value["result"].clone()), Err)));
                        }
                    }
                    None => hears.events.lock().unwrap().push(value),
                }
            }
        });
        let sink = tokio::sync::Mutex::new(sink);
        let mut browser =
            Browser { child, sink, heard, ids: AtomicU64::new(1), session: String::new(), _profile: profile };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" })).await.unwrap();
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach).await.unwrap();
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({})).await.unwrap();
        }
        browser.size(1280, 900).await;
        browser
    }

    async fn call(&self, method: &str, params: Value) -> Answered {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let mut message = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let (send, receive) = oneshot::channel();
        self.heard.waiting.lock().unwrap().insert(id, send);
        self.sink.lock().await.send(Message::text(message.to_string())).await.unwrap();
        let answered = tokio::time::timeout(PATIENCE, receive).await;
        answered
            .unwrap_or_else(|_| panic!("no answer to {method}"))
            .unwrap_or_else(|_| Err("it has ended".to_owned()))
    }

    /// What an expression of JavaScript comes to, a promise once it is kept.
    ///
    /// # Errors
    /// What it throws; also where the page is just being left.
    pub(crate) async fn try_eval(&self, expression: &str) -> Answered {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", params).await?;
        match answer.get("exceptionDetails") {
            Some(thrown) => Err(thrown.to_string()),
            None => Ok(answer["result"]["value"].clone()),
        }
    }

    pub(crate) async fn eval(&self, expression: &str) -> Value {
        self.try_eval(expression).await.unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    /// Waits until an expression is true.
    pub(crate) async fn until(&self, expression: &str) {
        eventually(PATIENCE, expression, async || {
            (self.try_eval(expression).await == Ok(json!(true))).then_some(())
        })
        .await;
    }

    /// Goes to a page and waits until it is there.
    pub(crate) async fn open(&self, url: &str) {
        let opened = self.call("Page.navigate", json!({ "url": url })).await.unwrap();
        assert!(opened.get("errorText").is_none(), "{url}: {opened}");
        self.until(&format!("location.href === {} && document.readyState === 'complete'", json!(url))).await;
    }

    /// Waits for a page whose path begins so.
    pub(crate) async fn arrives_at(&self, path: &str) {
        let there =
            format!("location.pathname.startsWith({}) && document.readyState === 'complete'", json!(path));
        self.until(&there).await;
    }

    pub(crate) async fn size(&self, width: u32, height: u32) {
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.call("Emulation.setDeviceMetricsOverride", metrics).await.unwrap();
    }

    pub(crate) async fn scheme(&self, scheme: &str) {
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", media).await.unwrap();
    }

    /// Presses a key and lets it go: `Tab`, `Enter` or `Space`.
    pub(crate) async fn press(&self, key: &str) {
        let (code, number, text) = match key {
            "Tab" => ("Tab", 9, ""),
            "Enter" => ("Enter", 13, "\r"),
            _ => panic!("{key}: another key than a test has needed"),
        };
        let event =
            |kind: &str| json!({ "type": kind, "key": key, "code": code, "windowsVirtualKeyCode": number });
        let mut down = event(if text.is_empty() { "rawKeyDown" } else { "keyDown" });
        if !text.is_empty() {
            down["text"] = json!(text);
        }
        self.call("Input.dispatchKeyEvent", down).await.unwrap();
        self.call("Input.dispatchKeyEvent", event("keyUp")).await.unwrap();
    }

    /// Writes into what has the focus.
    pub(crate) async fn write(&self, text: &str) {
        self.call("Input.insertText", json!({ "text": text })).await.unwrap();
    }

    /// What is in sight, as a PNG.
    pub(crate) async fn screenshot(&self) -> Vec<u8> {
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" })).await.unwrap();
        STANDARD.decode(shot["data"].as_str().unwrap()).unwrap()
    }

    /// What the console complains of: exceptions, errors, and what the page's policy has stopped.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let events = self.heard.events.lock().unwrap();
        let complaints = events.iter().filter(|event| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => {
                ["error", "warning", "assert"].contains(&event["params"]["type"].as_str().unwrap_or_default())
            }
            Some("Log.entryAdded") => event["params"]["entry"]["level"] != "verbose",
            _ => false,
        });
        complaints.map(Value::to_string).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// It says so on its standard error, which is read on.
async fn listens_at(child: &mut Child) -> String {
    let stderr = child.stderr.take().unwrap();
    let (send, receive) = oneshot::channel();
    std::thread::spawn(move || {
        let mut send = Some(send);
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if let Some(url) = line.strip_prefix("DevTools listening on ")
                && let Some(send) = send.take()
            {
                drop(send.send(url.to_owned()));
            }
        }
    });
    let url = tokio::time::timeout(PATIENCE + Duration::from_secs(30), receive).await;
    url.expect("Chromium does not say where it listens").expect("Chromium has ended")
}
