//! The usual shapes of a saga, whose INSERT should cost the same.

use pgsaga_sql::query::NewSaga;

/// One shape: the columns that a producer sets.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usual {
    pub(crate) name: &'static str,
    steps: String,
    headers: Option<&'static str>,
    labels: Option<&'static str>,
    queue: Option<&'static str>,
}

impl Usual {
    pub(crate) fn new(name: &'static str, steps: &str) -> Usual {
        Usual { name, steps: steps.to_owned(), ..Usual::default() }
    }

    pub(crate) fn saga<'a>(&'a self, gid: &'a str) -> NewSaga<'a> {
        let Usual { headers, labels, queue, .. } = *self;
        NewSaga { gid: Some(gid), steps: &self.steps, headers, labels, queue, ..NewSaga::default() }
    }
}

/// Two steps, of which the first has a compensation, at these places.
fn two(stock: &str, payment: &str) -> String {
    format!(
        r#"[{{"name": "stock", "action": "{stock}/reserve", "compensate": "{stock}/release", "payload": {{"sku": 7}}}},
            {{"name": "payment", "action": "{payment}/charge", "payload": {{"cents": 990}}}}]"#
    )
}

/// Every shape that an application may well use.
pub(crate) fn all() -> Vec<Usual> {
    let hosts = two("http://stock.internal", "http://payment.internal");
    let (headers, labels) = (r#"{"X-Tenant": "acme"}"#, r#"{"tenant": "acme", "kind": "order"}"#);
    let three = hosts.replace("}]", r#"}, {"name": "mail", "action": "http://mail.internal/send"}]"#);
    let nested =
        hosts.replace("990", r#"{"lines": [{"sku": 7, "tags": ["a", "b"]}], "to": {"city": "Rome"}}"#);
    vec![
        Usual::new("named_steps", &hosts),
        Usual::new(
            "unnamed_steps",
            &hosts.replace(r#""name": "stock", "#, "").replace(r#""name": "payment", "#, ""),
        ),
        Usual::new("addresses", &two("http://10.0.0.17:8080", "http://10.0.0.18:8080")),
        Usual::new("participants", &two("participant:stock", "participant:payment")),
        Usual { headers: Some(headers), ..Usual::new("headers", &hosts) },
        Usual::new("three_steps", &three),
        Usual::new("nested_payloads", &nested),
        Usual { queue: Some("orders"), labels: Some(labels), ..Usual::new("queue_and_labels", &hosts) },
    ]
}
