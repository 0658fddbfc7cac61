use async_compression::tokio::bufread::{BrotliEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use async_compression::zstd::CParameter;
use proptest::prelude::*;
use reqwest::header::HeaderValue;

use super::*;

const REFUSAL: &[u8] = br#"{"dtm_result":"FAILURE","message":"no money"}"#;
const BYTES_MAX: usize = 65_536;

/// Decoding never waits, so the runtime needs no timers.
fn ready<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn head(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn read_as(lines: &[(&'static str, &str)], body: &[u8], whole: bool) -> Result<(String, bool), String> {
    let (text, whole) = ready(text(&head(lines), body, whole, BYTES_MAX))?;
    Ok((String::from_utf8_lossy(&text).into_owned(), whole))
}

async fn all(mut encoder: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut encoded = Vec::new();
    encoder.read_to_end(&mut encoded).await.unwrap();
    encoded
}

fn encoded(coding: &str, body: &[u8]) -> Vec<u8> {
    ready(async {
        match coding {
            "gzip" => all(GzipEncoder::new(body)).await,
            "deflate" => all(ZlibEncoder::new(body)).await,
            "br" => all(BrotliEncoder::new(body)).await,
            "zstd" => all(ZstdEncoder::new(body)).await,
            other => panic!("{other}"),
        }
    })
}

const CODINGS: [&str; 4] = ["gzip", "deflate", "br", "zstd"];

/// Bytes that cannot be compressed.
fn noise(count: usize) -> Vec<u8> {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};
    let mut noise = vec![0; count];
    SmallRng::seed_from_u64(7).fill_bytes(&mut noise);
    noise
}

#[test]
fn what_is_declared_is_decoded() {
    let refusal = Ok((String::from_utf8(REFUSAL.to_vec()).unwrap(), true));
    for coding in CODINGS {
        assert_eq!(read_as(&[("content-encoding", coding)], &encoded(coding, REFUSAL), true), refusal);
    }
    // The output of zlib itself.
    let deflate = b"\x78\x9c\xab\x56\x4a\x29\xc9\x8d\x2f\x4a\x2d\x2e\xcd\x29\x51\xb2\x52\x72\x73\xf4\xf4\x09\x0d\x72\x55\xd2\x51\xca\x4d\x2d\x2e\x4e\x4c\x4f\x05\x8a\xe5\xe5\x2b\xe4\xe6\xe7\xa5\x56\x2a\xd5\x02\x00\x5b\x6d\x0e\xfe";
    assert_eq!(read_as(&[("content-encoding", "deflate")], deflate, true), refusal);
    let gzip = encoded("gzip", REFUSAL);
    for lines in [
        &[("content-encoding", "GZip")][..],
        &[("content-encoding", "x-gzip")],
        &[("content-encoding", "identity, gzip ,")],
        &[("content-encoding", "identity"), ("content-encoding", "gzip")],
        &[("transfer-encoding", "gzip, chunked")],
        &[("content-encoding", "gzip"), ("transfer-encoding", "chunked")],
    ] {
        assert_eq!(read_as(lines, &gzip, true), refusal, "{lines:?}");
    }
    let halves = [encoded("gzip", &REFUSAL[..20]), encoded("gzip", &REFUSAL[20..])].concat();
    assert_eq!(read_as(&[("content-encoding", "gzip")], &halves, true), refusal);
    let halves = [encoded("zstd", &REFUSAL[..20]), encoded("zstd", &REFUSAL[20..])].concat();
    assert_eq!(read_as(&[("content-encoding", "zstd")], &halves, true), refusal);
    for lines in [&[][..], &[("content-encoding", "identity")], &[("transfer-encoding", "chunked")]] {
        assert_eq!(read_as(lines, REFUSAL, true), refusal, "{lines:?}");
    }
    for nothing in ["gzip", "compress", "gzip, gzip"] {
        assert_eq!(read_as(&[("content-encoding", nothing)], b"", true), Ok((String::new(), true)));
    }
}

#[test]
fn what_cannot_be_decoded_is_an_error_with_words() {
    let twice = encoded("gzip", &encoded("gzip", REFUSAL));
    for (lines, found) in [
        (&[("content-encoding", "compress")][..], "compress"),
        (&[("content-encoding", "gzip, gzip")], "gzip, gzip"),
        (&[("content-encoding", "gzip"), ("content-encoding", "gzip")], "gzip, gzip"),
        (&[("content-encoding", "gzip"), ("transfer-encoding", "gzip, chunked")], "gzip, gzip"),
        (&[("content-encoding", "br,gzip")], "br, gzip"),
        (&[("content-encoding", "gzip;q=1")], "gzip;q=1"),
    ] {
        let words = format!(
            "the response has the content coding {found:?}, which cannot be read; allowed: one of gzip, deflate, br and zstd"
        );
        assert_eq!(read_as(lines, &twice, true), Err(words), "{lines:?}");
    }
    for coding in CODINGS {
        let words = |why| {
            Err(format!(
                "the response has a body in the content coding {coding:?} that cannot be read: {why}"
            ))
        };
        let damaged = match coding {
            "zstd" => "it is damaged or cut off, or needs a window of more than 8 MiB",
            _ => "it is damaged or cut off",
        };
        let lines = [("content-encoding", coding)];
        assert_eq!(read_as(&lines, REFUSAL, true), words(damaged));
        let encoded = encoded(coding, REFUSAL);
        for length in 1..encoded.len() {
            assert_eq!(read_as(&lines, &encoded[..length], true), words(damaged), "{length}");
        }
        let more = [&encoded[..], b"more"].concat();
        let found = read_as(&lines, &more, true);
        let behind = [words("extra bytes follow its end"), words(damaged)];
        assert!(behind.contains(&found), "{coding}: {found:?}");
    }
    let wide = [CParameter::window_log(24), CParameter::enable_long_distance_matching(true)];
    let zeros = vec![0; 32 << 20];
    let wide = ready(all(ZstdEncoder::with_quality_and_params(
        &zeros[..],
        async_compression::Level::Fastest,
        &wide,
    )));
    assert!(read_as(&[("content-encoding", "zstd")], &wide, true).unwrap_err().contains("8 MiB"));
}

#[test]
fn a_large_body_is_decoded_up_to_the_bound() {
    let zeros = vec![b' '; 100 << 20];
    for coding in CODINGS {
        let headers = head(&[("content-encoding", coding)]);
        let bomb = encoded(coding, &zeros);
        let read_max = read_bytes_max(&headers, BYTES_MAX);
        let (read, whole) = (&bomb[..bomb.len().min(read_max)], bomb.len() <= read_max);
        let (text_read, whole) = ready(text(&headers, read, whole, BYTES_MAX)).unwrap();
        assert_eq!((text_read.len(), whole), (BYTES_MAX, false), "{coding}");
        // An incompressible body over the limit: its start is decoded.
        let noise = noise(1 << 20);
        let read = &encoded(coding, &noise)[..read_max];
        let (start, whole) = ready(text(&headers, read, false, BYTES_MAX)).unwrap();
        assert_eq!((&start[..], whole), (&noise[..BYTES_MAX], false), "{coding}");
        let just = "x".repeat(BYTES_MAX);
        let read = encoded(coding, just.as_bytes());
        assert_eq!(read_as(&[("content-encoding", coding)], &read, true), Ok((just, true)), "{coding}");
    }
    // Empty gzip members, cut at the limit.
    let nothing = encoded("gzip", b"").repeat(20_000);
    let found = read_as(&[("content-encoding", "gzip")], &nothing, false);
    assert!(found.unwrap_err().ends_with("it exceeds the limit for a response"));
}

fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(unit).collect()
}

#[test]
fn characters_are_those_of_the_mark_the_zero_bytes_or_the_declaration() {
    let said = "{\"dtm_result\":\"FAILURE\",\"message\":\"kein Geld für Łódź 😀\"}";
    let marked = format!("\u{feff}{said}");
    for declared in ["", "; charset=utf-8", "; charset=UTF-16", "; Charset=\"utf-16be\"", "; charset=latin1"]
    {
        let lines = [("content-type", &*format!("application/json{declared}"))];
        for unit in [u16::to_le_bytes, u16::to_be_bytes] {
            for text in [said, &marked] {
                assert_eq!(read_as(&lines, &utf16(text, unit), true), Ok((said.into(), true)), "{declared}");
            }
        }
        assert_eq!(read_as(&lines, marked.as_bytes(), true), Ok((said.into(), true)), "{declared}");
    }
    for (lines, body, text) in [
        (&[][..], "é".as_bytes(), "é"),
        (&[("content-type", "application/json; charset=iso-8859-1")], b"caf\xe9", "café"),
        (&[("content-type", "text/html;charset=Shift_JIS")], b"\x83e\x83X\x83g", "テスト"),
        // A text that begins with two ASCII bytes is not UTF-16.
        (
            &[("content-type", "application/json; charset=utf-16")],
            REFUSAL,
            std::str::from_utf8(REFUSAL).unwrap(),
        ),
        (&[("content-type", "application/json; charset=utf-16be")], b" {}", " {}"),
        (&[("content-type", "nonsense")], b"{}", "{}"),
        (&[("content-type", "application/json;")], b"{}", "{}"),
        (&[("content-type", "text/plain"), ("content-type", "text/plain; charset=koi8-r")], b"\xc1", "а"),
    ] {
        assert_eq!(read_as(lines, body, true), Ok((text.to_owned(), true)), "{lines:?}");
    }
    let gzipped = encoded("gzip", &utf16(said, u16::to_be_bytes));
    assert_eq!(read_as(&[("content-encoding", "gzip")], &gzipped, true), Ok((said.into(), true)));
    // Incomplete text is not kept.
    let odd = [&utf16("{}", u16::to_le_bytes)[..], b"x"].concat();
    assert_eq!(read_as(&[], &odd, true), Ok(("{}\u{fffd}".into(), false)));
}

#[test]
fn a_charset_that_is_not_known_is_an_error_with_words() {
    let words = |found: &str| {
        Err(format!(
            "the response has the charset {found:?}, which cannot be read; allowed: UTF-8, UTF-16 and the others of the WHATWG Encoding Standard"
        ))
    };
    for charset in ["utf-7", "utf-32", "hz-gb-2312", "ibm037"] {
        let kind = format!("application/json; charset={charset}");
        assert_eq!(read_as(&[("content-type", &kind)], b"{}", true), words(charset));
    }
    for unit in [u32::to_le_bytes, u32::to_be_bytes] {
        for text in ["{\"dtm_result\":\"FAILURE\"}", "\u{feff} \n{}"] {
            let body: Vec<u8> = text.chars().flat_map(|character| unit(character.into())).collect();
            assert_eq!(read_as(&[], &body, true), words("UTF-32"), "{text:?}");
        }
        // Binary data: a length and its bytes.
        let framed = [&unit(8)[..], &[7; 8]].concat();
        assert!(read_as(&[], &framed, true).is_ok());
    }
}

#[test]
fn bytes_of_utf8_are_left_as_they_came() {
    for bytes in [&b"{\"message\":\"caf\xe9\"}"[..], b"\xff", b"\0\0\x1b", b"plain", b"\0", b"{"] {
        let (text, whole) = ready(text(&HeaderMap::new(), bytes, true, BYTES_MAX)).unwrap();
        assert!(matches!(text, Cow::Borrowed(same) if same == bytes) && whole, "{bytes:?}");
    }
}

proptest! {
    #[test]
    fn any_text_comes_through_any_coding(
        text in "[{a-z\\[\"][ -~é😀]{1,200}", coding in prop::sample::select(&CODINGS[..]), wide in any::<bool>(),
    ) {
        let bytes = if wide { utf16(&text, u16::to_be_bytes) } else { text.clone().into_bytes() };
        let lines = [("content-encoding", coding), ("content-type", if wide { "a/b;charset=utf-16be" } else { "a/b" })];
        prop_assert_eq!(read_as(&lines, &encoded(coding, &bytes), true), Ok((text, true)));
    }

    #[test]
    fn whatever_is_answered_is_bounded_or_an_error(
        coding in prop::sample::select(vec!["gzip", "deflate", "br", "zstd", "identity", "x"]),
        charset in prop::sample::select(vec!["a/b", "a/b;charset=utf-16", "a/b;charset=gb18030", "a/b;charset=x", ";;"]),
        said in prop::collection::vec(any::<u8>(), 0..400), whole in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = if CODINGS.contains(&coding) { encoded(coding, &said) } else { said };
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        let headers = head(&[("content-encoding", coding), ("content-type", charset)]);
        match ready(text(&headers, &bytes, whole, 100)) {
            // A byte of another character set becomes up to three bytes of UTF-8.
            Ok((text, _)) => prop_assert!(text.len() <= 300 || coding == "identity"),
            Err(words) => prop_assert!(!words.is_empty()),
        }
    }
}
