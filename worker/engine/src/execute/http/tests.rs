use std::sync::Arc;

use pgsaga_sql::contract::Target;
use proptest::prelude::*;
use tokio::sync::Semaphore;

use super::*;
use crate::execute::call::NotSent;
use crate::execute::task::Task;
use crate::execute::task::definition::{Definition, FreshKeys, SagaColumns};
use crate::execute::task::references::Answers;
use crate::flow::capacity::MemoryUse;
use crate::flow::participants::{Lane, Participants};
use crate::liveness::clock::DatabaseClock;
use crate::telemetry::metrics::{Metrics, Series};
use pgsaga_plan::{Attempt, Op};
use reqwest::header::HeaderValue;

/// The database's clock of these tests.
const NOW: Duration = Duration::from_secs(1_445_412_485); // Wed, 21 Oct 2015 07:28:05 GMT

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + NOW
}

fn asked(pairs: &[(&'static str, &str)]) -> Option<Duration> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.insert(*name, value.parse().unwrap());
    }
    retry_after(&headers, now)
}

#[test]
fn retry_after_is_seconds_or_a_date_and_nonsense_is_ignored() {
    assert_eq!(asked(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
    assert_eq!(asked(&[("retry-after", "99999999999999999999999")]), Some(Duration::from_secs(u64::MAX)));
    let date = [("retry-after", "Wed, 21 Oct 2015 07:28:10 GMT"), ("date", "Wed, 21 Oct 2015 07:28:00 GMT")];
    assert_eq!(asked(&date), Some(Duration::from_secs(10)));
    let by_the_database = asked(&[("retry-after", "Wed, 21 Oct 2015 07:28:10 GMT")]);
    assert_eq!(by_the_database, Some(Duration::from_secs(5)));
    assert_eq!(asked(&[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")]), Some(Duration::ZERO));
    for nonsense in ["", "-1", "soon", "1.5", "+3"] {
        assert_eq!(asked(&[("retry-after", nonsense)]), None, "{nonsense:?}");
    }
}

/// Generates header values that the client can return: any bytes but control characters.
fn values() -> impl Strategy<Value = Vec<u8>> {
    let date = (0..=253_402_300_799_u64)
        .prop_map(|seconds| httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)));
    prop_oneof![
        prop::collection::vec(prop_oneof![Just(b'\t'), 0x20..=0x7e_u8, 0x80..=0xff_u8], 0..100),
        "[0-9]{0,400}".prop_map(String::into_bytes),
        "[ \t]*[+-]?[0-9]{1,25}[.,]?[0-9]*[ \t]*".prop_map(String::into_bytes),
        date.prop_map(String::into_bytes),
        "(Mon|Tue|Sun)[a-z]*, [0-9]{1,2}[ -](Jan|Feb|Xxx)[ -][0-9]{2,4} [0-9]{2}:[0-9]{2}:[0-9]{2} (GMT|UTC)"
            .prop_map(String::into_bytes),
    ]
}

proptest! {
    #[test]
    fn no_retry_after_and_no_date_is_a_surprise(
        after in prop::collection::vec(values(), 0..3), dates in prop::collection::vec(values(), 0..3),
    ) {
        let mut headers = HeaderMap::new();
        for (name, values) in [(RETRY_AFTER, &after), (DATE, &dates)] {
            for value in values {
                headers.append(&name, HeaderValue::from_bytes(value).unwrap());
            }
        }
        let asked = retry_after(&headers, now);
        let text = after.first().and_then(|first| std::str::from_utf8(first).ok()).map(str::trim);
        let digits = text.filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
        let date = text.and_then(|text| httpdate::parse_http_date(text).ok());
        match (digits, date) {
            (Some(digits), _) => {
                prop_assert_eq!(asked, Some(Duration::from_secs(digits.parse().unwrap_or(u64::MAX))));
            }
            // Relative to the response's own Date if it can be parsed, else to the database's
            // clock.
            (None, Some(_)) => prop_assert!(asked.is_some()),
            (None, None) => prop_assert_eq!(asked, None),
        }
    }

    #[test]
    fn a_date_is_measured_from_the_answers_own_clock(from in 0..=4_102_444_800_u64, until in 0..=4_102_444_800_u64) {
        let date = |seconds| httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let expected = Duration::from_secs(until.saturating_sub(from));
        prop_assert_eq!(asked(&[("retry-after", &date(until)), ("date", &date(from))]), Some(expected));
    }
}

/// Generates texts that resemble a header, a name or a part of a URL.
fn texts() -> impl Strategy<Value = String> {
    let fragment = prop::sample::select(vec![
        "a",
        "Z",
        "7",
        "-",
        "_",
        ".",
        ":",
        "/",
        "?",
        "&",
        "=",
        "%",
        "%zz",
        "%0d%0a",
        "~",
        "|",
        "{",
        "}",
        "\"",
        "'",
        "^",
        "`",
        "<",
        " ",
        "\t",
        "\r",
        "\n",
        "\r\n",
        "\0",
        "\u{1b}",
        "\u{7f}",
        "é",
        "\u{85}",
        "\u{2028}",
        "😀",
        "#",
        "\\",
        "@",
        "[",
        "]",
        "xn--",
        "X-A: b\r\nX-C: d",
        "gid=other",
    ]);
    prop_oneof![4 => "[!-~]{1,12}", 2 => prop::collection::vec(fragment, 0..6).prop_map(|some| some.concat()), 1 => ".{0,8}"]
}

/// Generates the step and the headers of a saga with one step, and the step's name.
fn sagas() -> impl Strategy<Value = (String, String, String)> {
    let headers = || {
        prop::collection::btree_map(
            prop_oneof![3 => "[A-Za-z][A-Za-z0-9-]{0,9}", 1 => texts()],
            texts(),
            0..4,
        )
    };
    let host = prop_oneof![4 => "[a-z]{1,5}(\\.[a-z]{1,4})?(:[1-9][0-9]{0,4})?", 1 => texts()];
    let name = prop_oneof![3 => "[A-Za-z0-9._:-]{1,64}", 1 => texts()];
    (host, texts(), name, headers(), headers(), any::<bool>()).prop_map(|(host, rest, name, own, common, secure)| {
        let scheme = if secure { "https" } else { "http" };
        let url = format!("{scheme}://{host}/{rest}");
        let step = serde_json::json!({"name": name, "action": url, "compensate": url, "headers": own, "payload": 1});
        (serde_json::json!([step]).to_string(), serde_json::json!(common).to_string(), name)
    })
}

fn task(saga: Definition, op: Op) -> Task {
    Task {
        id: 1,
        epoch: 1,
        saga_id: 1,
        worker: 1,
        now: Attempt::first(0, op),
        lost: 0,
        lost_isolated: 0,
        interrupt: None,
        report: None,
        wait_ends: None,
        requested: false,
        deadline: None,
        saga: Arc::new(saga),
        answers: Answers::default(),
        fresh_keys: FreshKeys::default(),
        unbuildable: None,
        permit: Participants::new(
            1,
            Default::default(),
            Default::default(),
            Default::default(),
            Metrics::new(&Series::default()),
        )
        .hold("", Lane::default()),
        queue: None,
        counted: Metrics::new(&Series::default()).queue("default"),
        age: Duration::ZERO,
        claimed: Instant::now(),
        _slot: Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap(),
    }
}

fn decoded(
    steps: String,
    headers: String,
) -> Result<Definition, crate::execute::task::definition::DecodeError> {
    let columns = SagaColumns {
        gid: "order-42".to_owned(),
        steps,
        headers: Some(headers),
        retry_limit: None,
        compensate_retry_limit: None,
        timeout: None,
        compensate_failed: false,
        parallel: false,
        refers: false,
        result_mapping: None,
        retry_interval: 10.0,
        request_timeout: 3.0,
    };
    Definition::decode(columns, MemoryUse::default().add(0))
}

fn caller() -> HttpExecutor {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let everywhere = Addresses::new(vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()]);
    HttpExecutor::new(Options {
        connections: Connections::few(),
        addresses: everywhere,
        deny_plain_urls: false,
        authorities: Vec::new(),
    })
    .unwrap()
}

/// The call of a task, and the plain URL that it is for.
fn call<'a>(task: &'a Task, clock: &'a DatabaseClock) -> (Call<'a>, &'a str) {
    let step = task.step().unwrap();
    let Some(Target::Http(url)) = step.target(task.now.op) else { panic!("no plain URL: {step:?}") };
    (Call::new(task, step, Instant::now(), clock, 1024).unwrap(), url)
}

/// The request has each of our headers once with our value, and no value contains a line break.
fn assert_ours(request: &reqwest::Request, name: &str, op: Op) {
    let headers = request.headers();
    let only = |name: &str| {
        let all: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(all.len(), 1, "{name}");
        String::from_utf8(all[0].to_vec()).unwrap()
    };
    assert_eq!(only("idempotency-key"), format!("order-42/{name}/{}", op.as_str()));
    assert_eq!((only("content-type").as_str(), only("saga-attempt").as_str()), ("application/json", "1"));
    assert_eq!((only("saga-timeout-ms").as_str(), only("accept-encoding").as_str()), ("3000", "identity"));
    assert_eq!(headers.get_all("saga-action-key").iter().count(), usize::from(op == Op::Compensate));
    for (name, value) in headers {
        let is_line_break = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
        assert!(!value.as_bytes().iter().any(is_line_break), "{name}: {value:?}");
    }
    let pairs: Vec<_> = request.url().query_pairs().collect();
    let pairs: Vec<_> = pairs.iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(
        pairs[pairs.len() - 4..],
        [("gid", "order-42"), ("trans_type", "saga"), ("branch_id", name), ("op", op.as_str())]
    );
}

proptest! {
    #[test]
    fn whatever_a_saga_holds_its_request_is_built_or_definitely_refused((steps, headers, name) in sagas()) {
        let (caller, clock) = (caller(), DatabaseClock::default());
        let taken = pgsaga_producer::Definition::from_json(&format!(r#"{{"steps":{steps},"headers":{headers}}}"#)).is_ok();
        let definition = decoded(steps.clone(), headers.clone());
        prop_assert!(!taken || definition.is_ok(), "what the INSERT takes is decoded: {definition:?}");
        if definition.is_err() {
            return Ok(());
        }
        for op in [Op::Action, Op::Compensate] {
            let task = task(decoded(steps.clone(), headers.clone()).unwrap(), op);
            let (call, url) = call(&task, &clock);
            match caller.request(&call, url, None) {
                Ok(request) if taken => assert_ours(&request, &name, op),
                Ok(_) => {}
                Err(NotSent::Denied(why)) => prop_assert!(false, "everything is allowed: {why}"),
                Err(NotSent::Busy(_) | NotSent::Dropped) => prop_assert!(false, "nothing was called"),
                Err(NotSent::Unbuildable(words)) => {
                    // The parser rejects some xn-- labels.
                    prop_assert!(!taken || steps.to_ascii_lowercase().contains("xn--"), "{words}");
                    prop_assert!(!words.is_empty());
                }
            }
        }
    }
}

/// A resolver whose name servers never respond.
#[derive(Debug)]
struct Silent;

impl reqwest::dns::Resolve for Silent {
    fn resolve(&self, _: reqwest::dns::Name) -> reqwest::dns::Resolving {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_name_that_never_resolves_was_sent_nothing() {
    let (caller, clock) = (caller(), DatabaseClock::default());
    caller.clients.set_shared(reqwest::Client::builder().no_proxy().dns_resolver(Silent).build().unwrap());
    let url = "http://pay.example/charge";
    for payload in [serde_json::json!({}), serde_json::json!({"payload": {"cents": 990}})] {
        let mut step = serde_json::json!({"action": url, "compensate": url, "request_timeout_seconds": 0.2});
        step.as_object_mut().unwrap().extend(payload.as_object().unwrap().clone());
        for op in [Op::Action, Op::Compensate] {
            let steps = serde_json::json!([step]).to_string();
            let task = task(decoded(steps, "{}".to_owned()).unwrap(), op);
            let (call, url) = call(&task, &clock);
            let ended = caller.call(&call, url, None).await.unwrap();
            assert_eq!((ended.outcome, ended.reached), (Outcome::Unsent, Reach::Silent));
            assert_eq!(ended.message.as_deref(), Some(NO_CONNECTION));
            assert!(ended.duration < Duration::from_millis(200), "{:?}", ended.duration);
        }
    }
}
