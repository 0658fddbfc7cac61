//! Filters of sagas, for `pgsaga list` and for decisions about many sagas.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

/// Upper bound on an age. The database's clock has no moment beyond it.
const YEARS_MAX: u64 = 1000;

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; allowed: a duration such as 90s, 2h, 7d or 1h30m"))?;
    if duration > Duration::from_secs(YEARS_MAX * 366 * 86_400) {
        return Err(format!("allowed: up to {YEARS_MAX} years"));
    }
    Ok(duration)
}

pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let port = text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).unwrap_or(9464);
        format!("allowed: an IP address and a port, such as 127.0.0.1:{port}, 0.0.0.0:{port} or [::1]:{port}")
    })
}

pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| "allowed: an address or a network, such as 127.0.0.1, 10.0.0.0/8 or fd00::/8".to_owned())
}

pub(crate) fn micros(duration: Option<Duration>) -> Option<i64> {
    duration.map(|duration| duration.as_micros().try_into().unwrap_or(i64::MAX))
}

pub(crate) fn participant(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(['/', '?', '#', '@']) || text.contains(char::is_whitespace) {
        return Err(
            "allowed: a host, with its port where the URL names it, such as pay.example or pay.example:8080"
                .into(),
        );
    }
    Ok(text.to_owned())
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) key: String,
    /// `None` lets every value pass.
    pub(crate) value: Option<String>,
}

/// A label as `KEY=VALUE`, or `KEY` for any value.
pub(crate) fn label(text: &str) -> Result<Label, String> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, None),
    };
    if key.is_empty() {
        return Err("allowed: KEY=VALUE, or KEY for any value".to_owned());
    }
    Ok(Label { key: key.to_owned(), value })
}

/// Labels as the statements take them: keys, and their values in the same order. `None` without
/// labels.
pub(crate) fn labels(labels: &[Label]) -> (Option<Vec<String>>, Vec<Option<String>>) {
    let keys: Vec<String> = labels.iter().map(|label| label.key.clone()).collect();
    ((!keys.is_empty()).then_some(keys), labels.iter().map(|label| label.value.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_with_their_units() {
        let read = |text| duration(text).map_err(|error| error.contains("allowed:"));
        assert_eq!(read("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(read("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(read("1h30m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "90", "an hour", "-1s", "2000y"] {
            assert_eq!(read(bad), Err(true), "{bad}");
        }
    }

    #[test]
    fn a_participant_is_an_authority_and_no_url() {
        for good in ["pay.example", "pay.example:8080", "[::1]:80", "127.0.0.1"] {
            assert_eq!(participant(good), Ok(good.to_owned()));
        }
        for bad in ["", "http://pay.example", "pay.example/x", "a b"] {
            assert!(participant(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_label_has_a_value_or_any() {
        assert_eq!(label("a=b=c"), Ok(Label { key: "a".into(), value: Some("b=c".into()) }));
        assert_eq!(label("a="), Ok(Label { key: "a".into(), value: Some(String::new()) }));
        assert_eq!(label("a"), Ok(Label { key: "a".into(), value: None }));
        assert!(label("=b").is_err());
    }
}
