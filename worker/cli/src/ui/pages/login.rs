//! Log in with the token and a name, and log out.

use std::net::SocketAddr;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};

use crate::ui::App;
use crate::ui::access::visitor::Visitor;
use crate::ui::failure::Failure;
use crate::ui::layout::{NavItem, show, show_as};
use crate::ui::params::Params;
use crate::words::{counted, is_seen, is_unprintable};

const NAME_CHARS_MAX: usize = 64;

pub(crate) async fn ask(State(app): State<App>, visitor: Visitor, RawQuery(query): RawQuery) -> Response {
    let params = Params::read(query.as_deref().unwrap_or_default());
    let body = visitor.check_may_log_in().map(|()| form(&params, None));
    show(&app, &visitor, NavItem::Elsewhere, "Log in", body)
}

pub(crate) async fn enter(
    State(app): State<App>,
    visitor: Visitor,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let params = Params::read(&String::from_utf8_lossy(&body));
    let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
    // The browser uses TLS to a proxy in front of this process.
    let over_tls = origin.is_some_and(|origin| origin.starts_with("https://"));
    match enter_as(&app, &visitor, peer, &params) {
        Ok(secret) => (visitor.begin(secret, over_tls), Redirect::to(&way_back(&params))).into_response(),
        Err(failure) if visitor.may_log_in => {
            let body = form(&params, Some(&failure));
            show_as(&app, &visitor, NavItem::Elsewhere, "Log in", failure.status, body)
        }
        Err(failure) => show(&app, &visitor, NavItem::Elsewhere, "Log in", Err(failure)),
    }
}

fn enter_as(app: &App, visitor: &Visitor, peer: SocketAddr, params: &Params) -> Result<String, Failure> {
    visitor.check_may_log_in()?;
    if let Some(wait) = app.sessions.wait(peer.ip()) {
        let seconds = counted(wait.as_secs_f64().ceil() as i64, "second", "seconds");
        return Err(Failure::too_often(format!(
            "The next token from your address is looked at in {seconds}."
        )));
    }
    let name = name(params.get("name").unwrap_or_default())?;
    let given = params.get("token").unwrap_or_default();
    if !app.token.as_ref().is_some_and(|token| token.is(given)) {
        app.sessions.wrong(peer.ip());
        tracing::warn!(%peer, "a wrong token");
        return Err(Failure::forbidden("That is not the token."));
    }
    tracing::info!(%peer, by = name.as_str(), "logged in");
    Ok(app.sessions.begin(peer.ip(), name))
}

pub(crate) async fn leave(State(app): State<App>, visitor: Visitor, body: Bytes) -> Response {
    let params = Params::read(&String::from_utf8_lossy(&body));
    match visitor.session_of(&params) {
        Ok(session) => app.sessions.end(session),
        Err(failure) => return show(&app, &visitor, NavItem::Elsewhere, "Log out", Err(failure)),
    }
    (visitor.end(), Redirect::to("/")).into_response()
}

fn name(given: &str) -> Result<String, Failure> {
    let name = given.trim();
    let found = match name.chars().count() {
        0 => "nothing".to_owned(),
        count if count > NAME_CHARS_MAX => counted(count as i64, "character", "characters"),
        _ if name.contains(is_unprintable) => "a character that cannot be seen".to_owned(),
        _ if !is_seen(name) => "nothing that can be seen".to_owned(),
        _ => return Ok(name.to_owned()),
    };
    Err(Failure::bad(format!(
        "Your name: found {found}; allowed: 1 to {NAME_CHARS_MAX} characters that can be seen."
    )))
}

/// The page to return to. Anything that is no page of ours becomes the overview.
fn way_back(params: &Params) -> String {
    let to = params.get("to").unwrap_or("/");
    let is_ours = to.starts_with('/')
        && !to.starts_with("//")
        && !to.contains('\\')
        && to.bytes().all(|byte| byte.is_ascii_graphic())
        && !to.starts_with("/login")
        && !to.starts_with("/logout");
    if is_ours { to.to_owned() } else { "/".to_owned() }
}

fn form(params: &Params, failure: Option<&Failure>) -> Markup {
    html! {
        h1 { "Log in" }
        @if let Some(failure) = failure { p.alarm role="alert" { (failure.why) } }
        p { "To read, nobody needs to log in. To repair sagas, you need the token that this page was started with; your name is recorded with each decision." }
        form.fields method="post" action="/login" {
            input type="hidden" name="to" value=(params.get("to").unwrap_or("/"));
            label for="name" { "Your name" }
            input id="name" name="name" required maxlength=(NAME_CHARS_MAX) autocomplete="name" value=(params.get("name").unwrap_or_default());
            label for="token" { "Token" }
            input id="token" name="token" type="password" required autocomplete="current-password";
            button { "Log in" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_leads_to_a_page_of_ours() {
        for (to, way) in [
            ("/stuck", "/stuck"),
            ("/saga?gid=a%3Ab", "/saga?gid=a%3Ab"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("https://evil.example/", "/"),
            ("/a\r\nset-cookie: x", "/"),
            ("/login", "/"),
            ("", "/"),
        ] {
            let query = form_urlencoded::Serializer::new(String::new()).append_pair("to", to).finish();
            assert_eq!(way_back(&Params::read(&query)), way, "{to}");
        }
    }

    #[test]
    fn a_name_can_be_seen() {
        assert_eq!(name("  Ann Lee ").unwrap(), "Ann Lee");
        for bad in
            ["", "   ", "a\u{1b}[31m", "a\u{202e}b", "\u{3164}", "Ann\u{200b}", "\u{200d}", &"x".repeat(65)]
        {
            assert!(name(bad).unwrap_err().why.contains("allowed: 1 to 64"), "{bad}");
        }
    }
}
