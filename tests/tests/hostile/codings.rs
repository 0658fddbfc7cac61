//! Answers that are compressed, or not in UTF-8: a refusal is a refusal however its bytes are
//! written, and what cannot be read is no success.

use async_compression::Level::Fastest;
use async_compression::tokio::bufread::{BrotliEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use pgsaga_tests::scene::Scene;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::answers::{http, insert};
use crate::process::{assert_calm, memory_max};
use crate::raw::Raw;

const CODINGS: [&str; 4] = ["gzip", "deflate", "br", "zstd"];
/// How much a worker may grow by four answers of 100 MB, which it reads to their bound.
const GROWTH_MAX: u64 = 48 * 1024 * 1024;

/// What a try is judged to be, and what is told of it: the words, or the result.
type Judged = (&'static str, &'static str);

const NO: Judged = ("failure", "no money");
const LATER: Judged = ("ongoing", "later");
const YES: Judged = ("success", r#"{"said": "é"}"#);

/// What a participant says for each.
fn said(judged: Judged) -> &'static str {
    match judged.0 {
        "failure" => r#"{"dtm_result": "FAILURE", "message": "no money"}"#,
        "ongoing" => r#"{"dtm_result": "ONGOING", "message": "later"}"#,
        _ => r#"{"said": "é"}"#,
    }
}

async fn all(mut encoder: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut encoded = Vec::new();
    encoder.read_to_end(&mut encoded).await.unwrap();
    encoded
}

async fn encoded(coding: &str, body: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => all(GzipEncoder::with_quality(body, Fastest)).await,
        "deflate" => all(ZlibEncoder::with_quality(body, Fastest)).await,
        "br" => all(BrotliEncoder::with_quality(body, Fastest)).await,
        "zstd" => all(ZstdEncoder::with_quality(body, Fastest)).await,
        other => panic!("{other}"),
    }
}

fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(unit).collect()
}

/// A name, the status with the headers, the body, and what the answer is judged to be.
async fn answers() -> Vec<(String, String, Vec<u8>, Judged)> {
    let mut answers = Vec::new();
    for judged in [NO, LATER, YES] {
        let (outcome, said) = (judged.0, said(judged));
        let mut add = |name: &str, head: &str, body| {
            answers.push((format!("{outcome}-{name}"), format!("200 OK{head}"), body, judged));
        };
        for coding in CODINGS {
            let body = encoded(coding, said.as_bytes()).await;
            add(coding, &format!("\r\nContent-Encoding: {coding}"), body);
        }
        let gzip = encoded("gzip", said.as_bytes()).await;
        add("upper", "\r\ncontent-encoding: GZIP", gzip.clone());
        add("transfer", "\r\ntransfer-encoding: gzip", gzip);
        add("identity", "\r\ncontent-encoding: identity", said.into());
        for (name, unit) in [("le", u16::to_le_bytes as fn(u16) -> [u8; 2]), ("be", u16::to_be_bytes)] {
            let declared = format!("\r\ncontent-type: application/json; charset=utf-16{name}");
            let marked = utf16(&format!("\u{feff}{said}"), unit);
            add(&format!("{name}-marked"), "\r\ncontent-type: application/json", marked.clone());
            add(&format!("{name}-bare"), "", utf16(said, unit));
            add(&format!("{name}-declared"), &declared, utf16(said, unit));
            add(
                &format!("{name}-gzip"),
                &format!("{declared}\r\ncontent-encoding: gzip"),
                encoded("gzip", &marked).await,
            );
        }
        add("utf8-marked", "", format!("\u{feff}{said}").into());
        let (latin1, ..) = encoding_rs::WINDOWS_1252.encode(said);
        add("latin1", "\r\ncontent-type: application/json;charset=ISO-8859-1", latin1.into_owned());
    }
    let no = said(NO);
    let gzip = encoded("gzip", no.as_bytes()).await;
    let twice = encoded("gzip", &gzip).await;
    let damaged = gzip.iter().map(|byte| byte ^ 1).collect();
    let utf32 = no.chars().flat_map(|character| u32::from(character).to_be_bytes()).collect();
    let coding = |name: &str| format!("\r\ncontent-encoding: {name}");
    for (name, head, body, words) in [
        (
            "compress",
            coding("compress"),
            no.into(),
            r#"the response has the content coding "compress", which cannot"#,
        ),
        (
            "stacked",
            coding("gzip, gzip"),
            twice.clone(),
            r#"the response has the content coding "gzip, gzip", which cannot"#,
        ),
        (
            "two-lines",
            format!("{0}{0}", coding("gzip")),
            twice,
            r#"the response has the content coding "gzip, gzip", which cannot"#,
        ),
        ("damaged", coding("gzip"), damaged, "cannot be read: it is damaged or cut off"),
        ("cut-off", coding("gzip"), gzip[..20].to_vec(), "cannot be read: it is damaged or cut off"),
        ("not-gzip", coding("gzip"), no.into(), "cannot be read: it is damaged or cut off"),
        (
            "charset",
            "\r\ncontent-type: a/b; charset=utf-7".into(),
            no.into(),
            r#"the response has the charset "utf-7", which"#,
        ),
        ("utf-32", String::new(), utf32, r#"the response has the charset "UTF-32", which cannot be read"#),
    ] {
        answers.push((name.into(), format!("200 OK{head}"), body, ("unknown", words)));
    }
    let compress = coding("compress");
    for (name, status, judged) in [
        (
            "refused",
            "409 No",
            ("failure", r#"HTTP status 409; the response has the content coding "compress""#),
        ),
        (
            "early",
            "425 Too Early",
            ("ongoing", r#"HTTP status 425; the response has the content coding "compress""#),
        ),
        ("busy", "503 No", ("unknown", r#"HTTP status 503; the response has the content coding "compress""#)),
    ] {
        answers.push((name.into(), format!("{status}{compress}"), no.into(), judged));
    }
    let told = encoded("br", no.as_bytes()).await;
    answers.push(("told".into(), format!("409 No{}", coding("br")), told, NO));
    answers.push((
        "no-content".into(),
        format!("204 No Content{}", coding("gzip")),
        Vec::new(),
        ("success", ""),
    ));
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_judged_by_what_it_says_however_its_bytes_are_written() {
    let scene = Scene::with_worker().await;
    let answers = answers().await;
    let mut raws = Vec::new();
    for (name, head, body, _) in &answers {
        let raw = Raw::start().await;
        insert(&scene, name, &raw.on(name, http(head, body))).await;
        raws.push(raw);
    }
    for (name, .., (outcome, told)) in &answers {
        let (status, reason) = scene.ended(name).await;
        let history = scene.history(name).await;
        assert_eq!(history[0], format!("a action 1 {outcome}"), "{name}: {history:?}");
        assert_eq!(status, if *outcome == "failure" { "failed" } else { "succeeded" }, "{name}: {reason:?}");
        let (message, result): (Option<String>, Option<String>) = sqlx::query_as(
            "select (select h.message from pgsaga.history h where h.saga_id = s.id and h.kind = 'attempt' order by h.seq limit 1),
               s.result::text from pgsaga.saga s where s.gid = $1",
        )
        .bind(name)
        .fetch_one(scene.pool())
        .await
        .unwrap();
        if *outcome == "success" {
            assert_eq!((message, result.unwrap_or_default().as_str()), (None, *told), "{name}");
        } else {
            let message = message.unwrap();
            assert!(message.contains(told), "{name}: {message}");
        }
    }
    assert_calm(&scene.workers[0]);
    scene.healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_answer_that_unpacks_to_a_large_one_is_read_to_the_bound() {
    let scene = Scene::with_worker().await;
    scene.saga("before").step("a").insert().await;
    scene.expect("before", "succeeded", None, &["a action"]).await;
    let before = memory_max(&scene.workers[0]);
    let zeros = vec![0; 100_000_000];
    let spaces = [said(NO).as_bytes(), &vec![b' '; 1_000_000]].concat();
    let raw = Raw::start().await;
    for coding in CODINGS {
        let head = format!("200 OK\r\ncontent-encoding: {coding}");
        for (name, body) in [("zeros", &zeros), ("no", &spaces)] {
            let gid = format!("{name}-{coding}");
            let bomb = http(&head, &encoded(coding, body).await);
            insert(&scene, &gid, &raw.on(&gid, bomb)).await;
        }
    }
    for coding in CODINGS {
        // As an answer of that size that is not compressed.
        for (name, status, outcome) in [("zeros", "succeeded", "success"), ("no", "failed", "failure")] {
            let gid = format!("{name}-{coding}");
            assert_eq!(scene.ended(&gid).await.0, status, "{gid}");
            assert_eq!(scene.history(&gid).await[0], format!("a action 1 {outcome}"), "{gid}");
        }
    }
    scene.saga("after").step("a").insert().await;
    scene.expect("after", "succeeded", None, &["a action"]).await;
    let grown = memory_max(&scene.workers[0]).saturating_sub(before);
    println!("the worker grew by {} KiB", grown / 1024);
    assert!(grown < GROWTH_MAX, "{grown} bytes");
    assert_calm(&scene.workers[0]);
    scene.healthy().await;
}
