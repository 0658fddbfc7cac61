//! Checks of every request: its Host, its origin, and the security headers of every response.

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::ui::App;

/// Only our own files may be scripts and styles, so that text within a page never runs.
/// `same-origin` instead of no referrer, because without a referrer browsers also send no Origin
/// with a form.
const HEADERS: [(HeaderName, &str); 9] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
         base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    (HeaderName::from_static("x-robots-tag"), "noindex"),
];

pub(crate) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let refused = check(&app.hosts, request.method(), request.headers());
    let mut response = match refused {
        Ok(()) => next.run(request).await,
        Err((status, why)) => (status, format!("{why}\n")).into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn check(hosts: &[String], method: &Method, headers: &HeaderMap) -> Result<(), (StatusCode, String)> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_ours(hosts, host) {
        let why = format!(
            "this page is not served under the name {host:?}; allowed: an address, localhost, or a name given with --host"
        );
        return Err((StatusCode::MISDIRECTED_REQUEST, why));
    }
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    comes_from(host, headers).map_err(|why| (StatusCode::FORBIDDEN, why.to_owned()))
}

/// Whether the browser asked for this page and not for another name that resolves here (DNS
/// rebinding). A Host that is an address cannot be such a name.
fn is_ours(hosts: &[String], host: &str) -> bool {
    let Some(name) = name_of(host) else { return false };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || address.parse::<std::net::IpAddr>().is_ok() || hosts.contains(&name)
}

fn name_of(host: &str) -> Option<String> {
    let authority: Authority = host.parse().ok()?;
    if authority.as_str().contains('@') {
        return None;
    }
    Some(authority.host().trim_end_matches('.').to_ascii_lowercase())
}

/// The port of a Host header; `None` for the default port of the scheme.
pub(crate) fn port_of(headers: &HeaderMap) -> Option<u16> {
    let authority: Authority = headers.get(header::HOST)?.to_str().ok()?.parse().ok()?;
    authority.port_u16()
}

/// Accepts a form only from this page itself. Browsers say where a form comes from, and no other
/// program has a reason to send one.
fn comes_from(host: &str, headers: &HeaderMap) -> Result<(), &'static str> {
    let said = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let (site, origin) = (said("sec-fetch-site"), said("origin"));
    if site.is_some_and(|site| site != "same-origin") {
        return Err(
            "this form was sent from another page: found in Sec-Fetch-Site another value than same-origin",
        );
    }
    match origin.map(|origin| origin.split_once("://").map_or("", |(_, authority)| authority)) {
        Some(authority) if authority.eq_ignore_ascii_case(host) => Ok(()),
        Some(_) => Err("this form was sent from another page: found in Origin another host than in Host"),
        None if site.is_some() => Ok(()),
        None => Err(
            "nothing says which page this form was sent from; allowed: an Origin or a Sec-Fetch-Site of this page",
        ),
    }
}

pub(crate) fn host_name(text: &str) -> Result<String, String> {
    match name_of(text) {
        Some(name) if name == text.to_ascii_lowercase() && !name.is_empty() && !name.contains(['*', '[']) => {
            Ok(name)
        }
        _ => Err("allowed: a name without scheme, port and path, such as saga.example".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_named_hosts_are_served_and_no_other_name() {
        let hosts = ["saga.example".to_owned()];
        for ours in [
            "127.0.0.1:9460",
            "localhost:9460",
            "LOCALHOST",
            "[::1]:9460",
            "10.0.0.7",
            "saga.example",
            "Saga.Example.:80",
        ] {
            assert!(is_ours(&hosts, ours), "{ours}");
        }
        for other in [
            "",
            "rebound.example:9460",
            "localhost.rebound.example",
            "127.0.0.1.rebound.example",
            "x@127.0.0.1",
            "saga.example.x",
            "a b",
        ] {
            assert!(!is_ours(&hosts, other), "{other}");
        }
        assert_eq!(host_name("Saga.example"), Ok("saga.example".to_owned()));
        for bad in ["", "http://saga.example", "saga.example:80", "saga.example/x", "*", "u@saga.example"] {
            assert!(host_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_form_comes_from_this_page_or_is_refused() {
        let check = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            comes_from("localhost:9460", &headers).is_ok()
        };
        let (same, here) = (("sec-fetch-site", "same-origin"), ("origin", "http://localhost:9460"));
        for fine in [&[same][..], &[here], &[same, here], &[("origin", "https://LOCALHOST:9460")]] {
            assert!(check(fine), "{fine:?}");
        }
        for bad in [
            &[][..],
            &[("origin", "null")],
            &[("origin", "http://localhost:9466")],
            &[("origin", "http://localhost")],
            &[("origin", "http://evil.example"), same],
            &[("sec-fetch-site", "cross-site"), here],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "none"), here],
        ] {
            assert!(!check(bad), "{bad:?}");
        }
    }
}
