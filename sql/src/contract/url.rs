use std::net::{Ipv4Addr, Ipv6Addr};

use super::limit::URL_BYTES_MAX;

/// Keys that workers add to the query of each call. A barrier takes its op from them.
pub const RESERVED_QUERY_KEYS: [&str; 4] = ["gid", "trans_type", "branch_id", "op"];

/// Whether a step may call this plain URL: `http` or `https` in lower case, a host, maybe a port
/// from 1 to 65535, maybe a path or query of visible ASCII; no user, fragment or backslash.
///
/// URL parsers accept every such URL and read its host alike. The exception is the punycode of
/// `xn--` labels, which is not decoded here.
pub(super) fn is_url(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) else {
        return false;
    };
    if url.len() > URL_BYTES_MAX || !rest.bytes().all(|b| b.is_ascii_graphic() && b != b'#' && b != b'\\') {
        return false;
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if let Some(literal) = authority.strip_prefix('[') {
        // An IPv6 address with a dotted tail has a grammar of its own, and is refused.
        return literal.split_once(']').is_some_and(|(address, port)| {
            !address.contains('.') && address.parse::<Ipv6Addr>().is_ok() && is_empty_or_port(port)
        });
    }
    let host_end = authority.find(':').unwrap_or(authority.len());
    let (host, port) = authority.split_at(host_end);
    is_host(host) && is_empty_or_port(port)
}

/// Whether the query of a URL holds one of [`RESERVED_QUERY_KEYS`] in plain letters. A reader takes
/// one of two values, so the call could pass for another op. A worker also looks for escaped keys.
pub(super) fn has_reserved_query_key(url: &str) -> bool {
    url.split_once('?').is_some_and(|(_, query)| {
        let key = |pair: &str| pair.split('=').next().is_some_and(|key| RESERVED_QUERY_KEYS.contains(&key));
        query.split(['&', ';']).any(key)
    })
}

fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    if !host.split('.').all(label) {
        return false;
    }
    // Parsers read a host whose last label is a number as an IPv4 address, and only the dotted form
    // of four decimal numbers means the same to all of them.
    let last = host.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|b| b.is_ascii_digit()) {
        return host.parse::<Ipv4Addr>().is_ok();
    }
    !(last.starts_with("0x") || last.starts_with("0X"))
}

fn is_empty_or_port(text: &str) -> bool {
    text.is_empty()
        || text.strip_prefix(':').is_some_and(|port| {
            !port.starts_with('0') && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_that_every_parser_takes() {
        for good in [
            "http://a",
            "https://stock.example/reserve",
            "http://localhost:8080/x?y=1&z=%zz",
            "http://a?b",
            "http://127.0.0.1:65535/",
            "http://[::1]:80/",
            "http://[1:2:3:4:5:6:7::]",
            "http://a_b.c-d/",
            "http://0.0.0.0",
            "http://1a/",
            "http://00x/",
            "http://1.2.3.4a/",
            "http://-a-/",
            "http://a/{b}|\"^`<>",
        ] {
            assert!(is_url(good), "{good}");
        }
        assert!(is_url(&format!("http://a/{}", "x".repeat(URL_BYTES_MAX - 9))));
    }

    #[test]
    fn a_reserved_key_is_found_wherever_it_stands() {
        for (query, expected) in [
            ("?gid", true),
            ("?a=1&op=2", true),
            ("?a;branch_id=", true),
            ("?gids=1&a=gid", false),
            ("gid=1", false),
        ] {
            assert_eq!(has_reserved_query_key(&format!("http://a/{query}")), expected, "{query}");
        }
    }

    #[test]
    fn urls_that_some_parser_refuses_or_reads_otherwise() {
        for bad in [
            "",
            "a",
            "ftp://a",
            "HTTP://a",
            "http:/a",
            "http://",
            "http:///a",
            "http://?a",
            "http://a b",
            "http://a/ ",
            "http://a\n",
            "http://ä/",
            "http://a/ä",
            "http://u@a/",
            "http://u:p@a/",
            "http://a/#f",
            "http://a\\b",
            "http://a/\\",
            "http://a:0",
            "http://a:",
            "http://a:65536",
            "http://a:080",
            "http://a:+80",
            "http://a..b",
            "http://a.",
            "http://.a",
            "http://1",
            "http://1.2.3",
            "http://1.2.3.256",
            "http://01.2.3.4",
            "http://1.2.3.4.5",
            "http://a.1",
            "http://0x7f",
            "http://a.0x",
            "http://0xg",
            "http://[",
            "http://[]",
            "http://[::1",
            "http://[::1]a",
            "http://[::ffff:1.2.3.4]",
            "http://[1::2::3]",
            "http://[1:2:3:4:5:6:7:8::]",
            "http://[fe80::1%25eth0]",
            "http://[12345::]",
            "http://a%2eb/",
        ] {
            assert!(!is_url(bad), "{bad}");
        }
        assert!(!is_url(&format!("http://a/{}", "x".repeat(URL_BYTES_MAX - 8))));
    }

    proptest! {
        #[test]
        fn nothing_in_a_url_can_end_the_line_of_a_request(before in "https?://[a-z.:0-9\\[\\]]{0,12}", rest in any::<String>(), after in "[!-~]{0,9}") {
            for url in [rest.clone(), format!("{before}/{rest}{after}"), format!("{before}?{after}{rest}")] {
                if is_url(&url) {
                    prop_assert!(url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'\\'), "{url:?}");
                    prop_assert!(url.len() <= URL_BYTES_MAX);
                    let authority = url.split('/').nth(2).unwrap().split('?').next().unwrap();
                    prop_assert!(!authority.is_empty() && !authority.contains('@'), "{url:?}");
                }
            }
        }
    }
}
