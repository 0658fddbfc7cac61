//! Decodes the body of an answer: its content coding (RFC 9110 §8.4) first, then its character set.
//! A participant's `FAILURE` counts however its bytes are written. A body that cannot be decoded is
//! an error, because it may say no.

use std::borrow::Cow;
use std::io;

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use mime::Mime;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, TRANSFER_ENCODING};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Bytes of a compressed body that are read beyond the bound of a plain one: a decoder of zstd
/// gives out nothing of a block, which may have 128 KiB, before the block's end.
const COMPRESSED_BYTES_MORE: usize = 160 * 1024;
/// Log2 of the largest window of zstd that is allocated: the 8 MiB of RFC 9659. zstd itself
/// allocates up to 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Answers nested deeper are not kept: a payload that holds one would be deeper than a payload may
/// be.
const ANSWER_DEPTH_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// Upper bound on the bytes of a body that are read from the network.
pub(super) fn read_bytes_max(headers: &HeaderMap, bytes_max: usize) -> usize {
    match coding(headers) {
        Ok(Some(_)) => bytes_max.saturating_add(COMPRESSED_BYTES_MORE),
        Ok(None) | Err(_) => bytes_max,
    }
}

/// The text of `body`, up to `bytes_max` bytes before its characters are decoded, and whether that
/// is all of it. UTF-8 is left as it came. `whole` says whether `body` was read to its end.
///
/// # Errors
/// What keeps the body from being read, for people.
pub(super) async fn text<'a>(
    headers: &HeaderMap,
    body: &'a [u8],
    whole: bool,
    bytes_max: usize,
) -> Result<(Cow<'a, [u8]>, bool), String> {
    if body.is_empty() {
        // Some servers declare a coding of nothing.
        return Ok((Cow::Borrowed(body), whole));
    }
    match coding(headers)? {
        Some(coding) => {
            let (body, whole) = coding.decode(body, whole, bytes_max).await?;
            let (text, whole) = characters(headers, &body, whole)?;
            Ok((Cow::Owned(text.into_owned()), whole))
        }
        None => characters(headers, body, whole),
    }
}

/// The one coding that is to be undone, if any. A coding of the transfer is the same for the
/// reader, and `chunked` was undone.
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

    /// The decoded bytes up to `bytes_max`, and whether that is all. Nothing here waits: the input
    /// is in memory.
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
            Ok(()) | Err(_) if body.is_empty() && !whole => "it is larger than what is read of an answer",
            Ok(()) => "bytes follow its end",
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

/// Reads a byte more than `bytes_max`, which tells a longer body from one of just that length.
async fn read(decoder: impl AsyncRead + Unpin, bytes_max: usize, decoded: &mut Vec<u8>) -> io::Result<()> {
    decoder.take(bytes_max as u64 + 1).read_to_end(decoded).await.map(drop)
}

/// The text of `bytes` in UTF-8, without a mark. JSON without a mark or a declaration is UTF-8, or
/// UTF-16 by its zero bytes (RFC 4627 §3). The bytes count more than the declaration: no other
/// character set has them, and a text that begins with two bytes of ASCII is not in UTF-16,
/// whatever is declared. If a character could not be decoded, the answer counts as incomplete and
/// is not kept.
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

/// The parameter `charset` of the content type.
fn declared(headers: &HeaderMap) -> Option<String> {
    // Most declare no parameter, and are not parsed.
    let types = headers.get_all(CONTENT_TYPE).iter().filter(|value| value.as_bytes().contains(&b'='));
    let types = types.filter_map(|value| value.to_str().ok());
    types
        .filter_map(|value| value.parse::<Mime>().ok())
        .find_map(|mime| mime.get_param(mime::CHARSET).map(|charset| charset.as_str().to_owned()))
}

fn is_ascii_text(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte.is_ascii_whitespace()
}

/// Whether the text of an object begins here in UTF-32, with a mark or without.
fn is_object_in_utf32(bytes: &[u8]) -> bool {
    [u32::from_le_bytes, u32::from_be_bytes].into_iter().any(|character: fn([u8; 4]) -> u32| {
        let mut characters = bytes.as_chunks().0.iter().map(|bytes| char::from_u32(character(*bytes)));
        let is_blank = |found: &Option<char>| matches!(found, Some('\u{feff}' | ' ' | '\t' | '\r' | '\n'));
        characters.find(|found| !is_blank(found)) == Some(Some('{'))
    })
}

/// The answer as JSON text that jsonb can hold and print within `bytes_max`; `None` for anything
/// else. (`1e131071` has nine bytes, and jsonb prints 131,072.)
pub fn json(text: &[u8], bytes_max: usize) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let measure = pgsaga_producer::measure_json(text)?;
    (measure.bytes <= bytes_max && measure.depth <= ANSWER_DEPTH_MAX).then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
