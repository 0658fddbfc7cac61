use super::limit::{HEADER_NAME_BYTES_MAX, HEADER_VALUE_BYTES_MAX};

/// Headers that pgsaga or the transport sets, in lower case. No saga may set them.
pub const RESERVED_HEADERS: [&str; 21] = [
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "accept-encoding",
    "connection",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "keep-alive",
    "expect",
    "proxy-authorization",
    "proxy-connection",
    "idempotency-key",
    "saga-attempt",
    "saga-timeout-ms",
    "saga-action-key",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
];

/// Whether the header is one of [`RESERVED_HEADERS`], in upper or lower case.
pub fn is_reserved_header(name: &str) -> bool {
    RESERVED_HEADERS.iter().any(|reserved| reserved.eq_ignore_ascii_case(name))
}

/// Whether a saga's header may have this name: a token of HTTP (RFC 9110 §5.6.2) of limited length.
pub fn is_header_name(name: &str) -> bool {
    (1..=HEADER_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Whether a saga's header may have this value: visible ASCII, spaces and tabs.
pub fn is_header_value(value: &str) -> bool {
    value.len() <= HEADER_VALUE_BYTES_MAX && value.bytes().all(|b| matches!(b, b'\t' | b' '..=b'~'))
}
