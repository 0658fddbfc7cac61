//! Somebody who asks for pages and sends forms, as a browser would, and as none would.

use std::net::SocketAddr;

use pgsaga_tests::ui::{TOKEN, Ui};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Url, redirect};

/// What was answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The page, where it was shown.
    #[track_caller]
    pub(crate) fn fine(self) -> String {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }

    #[track_caller]
    pub(crate) fn has(&self, text: &str) -> &Self {
        assert!(self.body.contains(text), "{text:?} is not in\n{}", self.body);
        self
    }

    /// The first link whose text contains this.
    pub(crate) fn link(&self, text: &str) -> Option<String> {
        self.body.split("<a ").skip(1).find_map(|rest| {
            let (tag, rest) = rest.split_once('>')?;
            rest.split("</a>").next()?.contains(text).then(|| attribute(tag, "href")).flatten()
        })
    }

    /// The value of a field that nobody sees.
    pub(crate) fn hidden(&self, name: &str) -> Option<String> {
        let mut tags = self.body.split("<input ").skip(1).filter_map(|rest| rest.split('>').next());
        let tag =
            tags.find(|tag| tag.contains("type=\"hidden\"") && tag.contains(&format!("name=\"{name}\"")))?;
        attribute(tag, "value")
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split_once(&format!("{name}=\""))?.1.split('"').next()?;
    Some(value.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&"))
}

pub(crate) struct Visitor {
    client: Client,
    address: SocketAddr,
    cookie: Option<String>,
}

impl Visitor {
    pub(crate) async fn of(ui: &Ui) -> Visitor {
        // Another test may have been faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().redirect(redirect::Policy::none()).no_proxy().build().unwrap();
        Visitor { client, address: ui.address().await, cookie: None }
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// What a browser has for both pages: cookies are a host's, whatever the port.
    pub(crate) fn share_cookies(&mut self, other: &mut Visitor) {
        let both: Vec<String> = self.cookie.iter().chain(&other.cookie).cloned().collect();
        self.cookie = Some(both.join("; "));
        other.cookie.clone_from(&self.cookie);
    }

    /// As it stands: no header is added but the cookie.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        form: &str,
    ) -> Answer {
        let mut request = self.client.request(method, format!("http://{}{path}", self.address));
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie);
        }
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            request = request.header(name, HeaderValue::from_str(value).unwrap());
        }
        if !form.is_empty() {
            request =
                request.header("content-type", "application/x-www-form-urlencoded").body(form.to_owned());
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, body: response.text().await.unwrap() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], "").await
    }

    /// A form of this page.
    pub(crate) async fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        let origin = format!("http://{}", self.address);
        let headers = [("origin", origin.as_str()), ("sec-fetch-site", "same-origin")];
        self.ask(Method::POST, path, &headers, &encoded(form)).await
    }

    pub(crate) async fn log_in(&mut self, name: &str) {
        let entered = self.post("/login", &[("name", name), ("token", TOKEN), ("to", "/stuck")]).await;
        assert_eq!((entered.status, entered.header("location")), (303, "/stuck"), "{}", entered.body);
        let cookie = entered.header("set-cookie");
        for word in ["HttpOnly", "SameSite=Strict", "Path=/"] {
            assert!(cookie.contains(word), "{cookie}");
        }
        let pair = cookie.split(';').next().unwrap();
        let (name, secret) = pair.split_once('=').unwrap();
        assert_eq!(name, format!("pgsaga_ui_{}", self.address.port()));
        assert!(secret.len() >= 32 && secret != TOKEN, "{cookie}");
        self.cookie = Some(pair.to_owned());
    }

    /// The form of a decision, as its page gives it.
    pub(crate) async fn form(&self, asked: &[(&str, &str)]) -> (Answer, Vec<(String, String)>) {
        let page = self.get(&format!("/decide?{}", encoded(asked))).await;
        assert_eq!(page.status, 200, "{asked:?}: {}", page.body);
        let names = ["gid", "queue", "action", "step", "form_token", "stamp"];
        let fields = names.iter().filter_map(|name| Some(((*name).to_owned(), page.hidden(name)?))).collect();
        (page, fields)
    }

    pub(crate) async fn send(&self, fields: &[(String, String)], comment: &str) -> Answer {
        let mut form: Vec<(&str, &str)> =
            fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        form.push(("comment", comment));
        self.post("/decide", &form).await
    }

    /// Asks, reads, confirms.
    pub(crate) async fn decide(&self, asked: &[(&str, &str)], comment: &str) -> Answer {
        let (_, fields) = self.form(asked).await;
        self.send(&fields, comment).await
    }
}

/// As a form is sent.
pub(crate) fn encoded(pairs: &[(&str, &str)]) -> String {
    let mut url = Url::parse("http://pgsaga.example/").unwrap();
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
}
