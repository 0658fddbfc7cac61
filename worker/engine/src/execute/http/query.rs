//! The query of a call: gid, trans_type, branch_id and op, by which a barrier identifies the op.

use pgsaga_sql::contract::RESERVED_QUERY_KEYS;

/// Whether the URL of a step already has one of the added keys, in any encoding. Given two values,
/// some servers use the first and would mistake the call for an op of another saga. The INSERT
/// refuses only keys that need no decoding.
pub(super) fn has_reserved_key(url: &str) -> bool {
    url.split_once('?').is_some_and(|(_, query)| {
        query
            .split(['&', ';'])
            .flat_map(|pair| url::form_urlencoded::parse(pair.as_bytes()))
            .any(|(key, _)| RESERVED_QUERY_KEYS.contains(&&*key))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_ours_is_known_however_it_is_written() {
        for query in [
            "gid=x",
            "gid",
            "a=1&op=action",
            "a=1;op=action",
            "%67id=x",
            "a&%6f%70=compensate",
            "trans%5Ftype=saga",
            "branch_id=&x",
            "a=%26&gid=",
        ] {
            assert!(has_reserved_key(&format!("https://pay.example/charge?{query}")), "{query}");
        }
        for url in [
            "https://pay.example/gid=x",
            "https://pay.example/charge?",
            "https://pay.example/charge?GID=x&gids=1&xgid=2&a=gid&a=%26gid=1",
            "participant:pay/charge?operation=x",
            "",
        ] {
            assert!(!has_reserved_key(url), "{url}");
        }
    }
}
