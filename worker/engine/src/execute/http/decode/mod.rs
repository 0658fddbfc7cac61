//! Decodes the body of a response: first its content coding (RFC 9110 §8.4), then its character
//! set. A participant's `FAILURE` counts in any encoding. A body that cannot be decoded is an
//! error, because it may be a refusal.

use std::borrow::Cow;
use std::io;

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use mime::Mime;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, TRANSFER_ENCODING};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Bytes of a compressed body read beyond the limit for a plain body. A zstd decoder returns data
/// only at the end of a block, and a block may have 128 KiB.
const COMPRESSED_BYTES_MORE: usize = 160 * 1024;
/// Log2 of the largest zstd window: 8 MiB, as in RFC 9659. zstd itself would allocate up to 128
/// MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// Returns the upper bound on body bytes read from the network.
pub(super) fn read_bytes_max(headers: &HeaderMap, bytes_max: usize) -> usize {
    match coding(headers) {
        Ok(Some(_)) => bytes_max.saturating_add(COMPRESSED_BYTES_MORE),
        Ok(None) | Err(_) => bytes_max,
    }
}

/// Decodes at most `bytes_max` bytes of `body`, and returns whether the text is complete. UTF-8 is
/// returned unchanged. `whole`: the body was read to its end.
///
/// # Errors
/// A message for people with the reason.
pub(super) async fn text<'a>(
    headers: &HeaderMap,
    body: &'a [u8],
    whole: bool,
    bytes_max: usize,
) -> Result<(Cow<'a, [u8]>, bool), String> {
    if body.is_empty() {
        // Some servers declare a coding for an empty body.
        return Ok((Cow::Borrowed(body), whole));
    }
    // control: answer-coding
    match coding(headers)? {
        Some(coding) => {
            let (body, whole) = coding.decode(body, whole, bytes_max).await?;
            let (text, whole) = characters(headers, &body, whole)?;
            Ok((Cow::Owned(text.into_owned()), whole))
        }
        None => characters(headers, body, whole),
    }
}

/// Returns the coding to decode, if any. A transfer coding is treated like a content coding; the
/// client has already decoded `chunked`.
fn coding(headers: &HeaderMap) -> Result<Option<Coding>, String> {
    let all = |name: &HeaderName, none: &[&str]| {
        let mut codings = Vec::new();
        for value in headers.get_all(name) {
            let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
            let names = value.split(',').map(str::trim).filter(|name| !none.contains(name));
            codings.extend(names.map(str::to_owned));
        }
        codings
    };
    let mut codings = all(&CONTENT_ENCODING, &["", "identity"]);
    codings.extend(all(&TRANSFER_ENCODING, &["", "identity", "chunked"]));
    let coding = match codings.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => return Ok(None),
        ["gzip" | "x-gzip"] => Coding::Gzip,
        ["deflate"] => Coding::Deflate,
        ["br"] => Coding::Brotli,
        ["zstd"] => Coding::Zstd,
        _ => {
            return Err(format!(
                "the response has the content coding {:?}, which cannot be read; allowed: one of gzip, deflate, br and zstd",
                codings.join(", ")
            ));
        }
    };
    Ok(Some(coding))
}

impl Coding {
    fn as_str(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Deflate => "deflate",
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
        }
    }

    /// Decodes at most `bytes_max` bytes, and returns whether they are complete. Never waits,
    /// because the input is in memory.
    async fn decode(self, mut body: &[u8], whole: bool, bytes_max: usize) -> Result<(Vec<u8>, bool), String> {
        let mut decoded = Vec::new();
        let input = &mut body;
        let ended = match self {
            Coding::Gzip => {
                let mut decoder = GzipDecoder::new(input);
                decoder.multiple_members(true);
                read(decoder, bytes_max, &mut decoded).await
            }
            Coding::Deflate => read(ZlibDecoder::new(input), bytes_max, &mut decoded).await,
            Coding::Brotli => read(BrotliDecoder::new(input), bytes_max, &mut decoded).await,
            Coding::Zstd => {
                let window = DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX);
                let mut decoder = ZstdDecoder::with_params(input, &[window]);
                decoder.multiple_members(true);
                read(decoder, bytes_max, &mut decoded).await
            }
        };
        let why = match ended {
            _ if decoded.len() > bytes_max => {
                decoded.truncate(bytes_max);
                return Ok((decoded, false));
            }
            Ok(()) if body.is_empty() && whole => return Ok((decoded, true)),
            Ok(()) | Err(_) if body.is_empty() && !whole => "it exceeds the limit for a response",
            Ok(()) => "extra bytes follow its end",
            Err(_) if self == Coding::Zstd => {
                "it is damaged or cut off, or needs a window of more than 8 MiB"
            }
            Err(_) => "it is damaged or cut off",
        };
        Err(format!(
            "the response has a body in the content coding {:?} that cannot be read: {why}",
            self.as_str()
        ))
    }
}

/// Reads one byte more than `bytes_max`, to detect a longer body.
async fn read(decoder: impl AsyncRead + Unpin, bytes_max: usize, decoded: &mut Vec<u8>) -> io::Result<()> {
    // control: answer-unpacked-bound
    decoder.take(bytes_max as u64 + 1).read_to_end(decoded).await.map(drop)
}

/// Converts a body to UTF-8 without a byte order mark. JSON without a mark and without a declared
/// charset is UTF-8, or UTF-16 if its zero bytes show that (RFC 4627 §3).
///
/// The bytes take precedence over the declaration. Only UTF-16 has these zero bytes, and a text
/// that begins with two ASCII bytes is not UTF-16. A text with a character that cannot be decoded
/// counts as incomplete and is not kept.
fn characters<'a>(
    headers: &HeaderMap,
    bytes: &'a [u8],
    whole: bool,
) -> Result<(Cow<'a, [u8]>, bool), String> {
    let unreadable = |charset: &str| {
        format!(
            "the response has the charset {charset:?}, which cannot be read; allowed: UTF-8, UTF-16 and the others of the WHATWG Encoding Standard"
        )
    };
    if is_object_in_utf32(bytes) {
        return Err(unreadable("UTF-32"));
    }
    let (encoding, mark) = match (Encoding::for_bom(bytes), bytes, declared(headers)) {
        (Some(found), ..) => found,
        (None, &[first, 0, ..], _) if is_ascii_text(first) => (UTF_16LE, 0),
        (None, &[0, second, ..], _) if is_ascii_text(second) => (UTF_16BE, 0),
        (None, _, Some(label)) => {
            let encoding = Encoding::for_label_no_replacement(label.as_bytes());
            let encoding = encoding.ok_or_else(|| unreadable(&label))?;
            let is_ascii = bytes.first().is_some_and(|first| is_ascii_text(*first));
            (if is_ascii && !encoding.is_ascii_compatible() { UTF_8 } else { encoding }, 0)
        }
        (None, _, None) => (UTF_8, 0),
    };
    let bytes = bytes.get(mark..).unwrap_or_default();
    // control: answer-characters
    if encoding == UTF_8 {
        return Ok((Cow::Borrowed(bytes), whole));
    }
    let (text, has_errors) = encoding.decode_without_bom_handling(bytes);
    let text = match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    };
    Ok((text, whole && !has_errors))
}

/// Returns the `charset` parameter of the content type.
fn declared(headers: &HeaderMap) -> Option<String> {
    // Most content types have no parameter and need no parsing.
    let types = headers.get_all(CONTENT_TYPE).iter().filter(|value| value.as_bytes().contains(&b'='));
    let types = types.filter_map(|value| value.to_str().ok());
    types
        .filter_map(|value| value.parse::<Mime>().ok())
        .find_map(|mime| mime.get_param(mime::CHARSET).map(|charset| charset.as_str().to_owned()))
}

fn is_ascii_text(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte.is_ascii_whitespace()
}

/// Whether the bytes begin a JSON object in UTF-32, with or without a byte order mark.
fn is_object_in_utf32(bytes: &[u8]) -> bool {
    [u32::from_le_bytes, u32::from_be_bytes].into_iter().any(|character: fn([u8; 4]) -> u32| {
        let mut characters = bytes.as_chunks().0.iter().map(|bytes| char::from_u32(character(*bytes)));
        let is_blank = |found: &Option<char>| matches!(found, Some('\u{feff}' | ' ' | '\t' | '\r' | '\n'));
        characters.find(|found| !is_blank(found)) == Some(Some('{'))
    })
}

#[cfg(test)]
mod tests;
