//! The visitor of a page, identified by a cookie.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum_extra::extract::CookieJar;
use axum_extra::extract::cookie::{Cookie, SameSite};
use subtle::ConstantTimeEq as _;

use super::guard;
use super::session::Session;
use crate::ui::App;
use crate::ui::failure::Failure;
use crate::ui::params::Params;

/// Name of the session cookie, without the port. Browsers send a cookie to every port of a host,
/// and the pages of two ports must not log each other out.
const COOKIE: &str = "pgsaga_ui";

pub(crate) struct Visitor {
    /// Present for a person who is logged in.
    pub(crate) session: Option<Session>,
    /// Whether the page has a token, so that a person may log in.
    pub(crate) may_log_in: bool,
    cookie: String,
    /// The page that was requested, to return to after a login.
    pub(crate) asked_for: String,
}

impl FromRequestParts<App> for Visitor {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Visitor, Infallible> {
        let may_log_in = app.token.is_some();
        let cookie = guard::port_of(&parts.headers)
            .map_or_else(|| COOKIE.to_owned(), |port| format!("{COOKIE}_{port}"));
        let jar = CookieJar::from_headers(&parts.headers);
        let secret = jar.get(&cookie).filter(|_| may_log_in);
        let session = secret.and_then(|secret| app.sessions.find(secret.value()));
        let asked_for = parts.uri.path_and_query().map(|asked| asked.as_str());
        // A path that begins with two slashes leads to another host.
        let asked_for = asked_for.filter(|asked| !asked.starts_with("//")).unwrap_or("/").to_owned();
        Ok(Visitor { session, may_log_in, cookie, asked_for })
    }
}

impl Visitor {
    pub(crate) fn check_may_log_in(&self) -> Result<(), Failure> {
        if self.may_log_in {
            return Ok(());
        }
        Err(Failure::forbidden(
            "This page is read-only: it was started without a token. See `pgsaga ui --help`; `pgsaga retry` and the other \
             commands decide as well.",
        ))
    }

    /// Returns the session if the form belongs to it.
    pub(crate) fn session_of(&self, form: &Params) -> Result<&Session, Failure> {
        self.check_may_log_in()?;
        let session = self.session.as_ref().ok_or_else(|| Failure {
            status: StatusCode::UNAUTHORIZED,
            ..Failure::forbidden("You are not logged in, or no longer: log in, and begin again.")
        })?;
        let given = form.get("form_token").unwrap_or_default();
        if given.as_bytes().ct_eq(session.form_token.as_bytes()).into() {
            return Ok(session);
        }
        Err(Failure::forbidden("This form is not of your session: begin again."))
    }

    /// Cookies that start a session. With `over_tls` the browser sends them only over TLS, which a
    /// proxy terminates.
    pub(crate) fn begin(&self, secret: String, over_tls: bool) -> CookieJar {
        let cookie = Cookie::build((self.cookie.clone(), secret)).path("/").http_only(true);
        let cookie = cookie.same_site(SameSite::Strict);
        CookieJar::new().add(if over_tls { cookie.secure(true) } else { cookie })
    }

    pub(crate) fn end(&self) -> CookieJar {
        CookieJar::new().add(Cookie::build(self.cookie.clone()).path("/").removal())
    }
}
