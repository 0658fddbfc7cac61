//! `pgsaga ui`: a web page for people.

mod access;
mod decide;
mod failure;
mod layout;
mod overview;
mod pages;
mod params;
mod store;
mod text;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::get;
use clap::Args;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::operate::Database;
use crate::operate::filter::address;
use access::guard;
use access::session::Sessions;
use access::token::Token;
use pages::{login, queues, saga, sagas, stuck, workers};
use pgsaga_worker::db::Hosts;
use pgsaga_worker::telemetry::listener as http_listener;
use store::Store;

pub(crate) use access::token::VARIABLE as TOKEN_VARIABLE;

/// Upper bound on a form. A comment has up to 1,024 bytes, each of which becomes three when it is
/// encoded.
const FORM_BYTES_MAX: usize = 16 * 1024;

const ENVIRONMENT: &str = "\
The token:
  The environment variable PGSAGA_UI_TOKEN, or the file of --token-file, holds the token that whoever repairs sagas logs in with: \
16 to 1,024 printable ASCII characters without a space. It is no flag, because everybody on a machine can read the flags of a \
process. Without a token the page is read-only, and so are its sessions in the database.

Rights in the database:
  pgsaga_reader is enough to read; with a token, pgsaga_operator.";

/// Serve a web page that shows what runs, what is stuck and why; with a token, people can also take
/// the decisions that repair it
///
/// The page has no TLS of its own: reach it through a tunnel, or through a proxy that terminates
/// TLS. Everybody who reaches the page may read it. Runs until SIGTERM or SIGINT. While the
/// database cannot be reached, the page says so, and recovers by itself.
#[derive(Debug, Args)]
#[command(after_help = ENVIRONMENT)]
pub(crate) struct Ui {
    #[command(flatten)]
    database: Database,
    /// Address and port to listen on
    #[arg(long, env = "PGSAGA_UI_LISTEN", default_value = "127.0.0.1:9460", value_name = "ADDRESS:PORT", value_parser = address)]
    listen: SocketAddr,
    /// A host name under which browsers may request the page, such as saga.example; repeatable.
    /// Addresses and localhost are always allowed. Other names are refused, so that no other site
    /// can read this page under a name of its own (DNS rebinding)
    #[arg(long, env = "PGSAGA_UI_HOSTS", value_delimiter = ',', value_name = "NAME", value_parser = guard::host_name)]
    host: Vec<String>,
    /// A file that contains only the token; see below
    #[arg(long, env = "PGSAGA_UI_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

#[derive(Clone)]
struct App(Arc<Parts>);

struct Parts {
    store: Store,
    /// `None` makes the page read-only.
    token: Option<Token>,
    sessions: Sessions,
    hosts: Vec<String>,
    overview: overview::Cache,
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Ui {
    /// Serves until `stop`. Responses in progress may then end.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        // Output that other commands colour is shown in a browser here.
        console::set_colors_enabled(false);
        let token = Token::find(self.token_file.as_deref())?;
        let url = self.database.database_url;
        let unverified = Hosts::read(&url, true, store::ANSWER_MAX)?.is_unverified();
        let listen = |source| Error::Listen { address: self.listen, source };
        let listener = TcpListener::bind(self.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let read_only = token.is_none();
        tracing::info!(%address, read_only, version = env!("CARGO_PKG_VERSION"), "listening");
        if unverified {
            tracing::warn!(
                "the link to Postgres is not verified: use sslmode=verify-full in the database URL"
            );
        }
        if !read_only && !address.ip().is_loopback() {
            tracing::warn!(
                "the token travels as it is: put a proxy with TLS before this page, or listen on 127.0.0.1"
            );
        }
        let app = App(Arc::new(Parts {
            store: Store::new(url, !read_only),
            token,
            sessions: Sessions::default(),
            hosts: self.host,
            overview: overview::Cache::default(),
        }));
        http_listener::accept(listener, router(app), stop).await;
        Ok(())
    }
}

fn router(app: App) -> Router {
    Router::new()
        .route("/", get(pages::overview::page))
        .route("/live", get(pages::overview::fragment))
        .route("/sagas", get(sagas::page))
        .route("/saga", get(saga::page))
        .route("/stuck", get(stuck::page))
        .route("/queues", get(queues::page))
        .route("/workers", get(workers::page))
        .route("/decide", get(decide::ask).post(decide::take))
        .route("/login", get(login::ask).post(login::enter))
        .route("/logout", axum::routing::post(login::leave))
        .route(
            "/static/style.css",
            get(|| asset("text/css; charset=utf-8", include_str!("static/style.css"))),
        )
        .route(
            "/static/live.js",
            get(|| asset("text/javascript; charset=utf-8", include_str!("static/live.js"))),
        )
        .route("/static/icon.svg", get(|| asset("image/svg+xml", include_str!("static/icon.svg"))))
        // Says only that the process runs. If it said anything about Postgres, an outage of
        // Postgres would restart this process too.
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(layout::nowhere)
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .layer(from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}

async fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind)], text)
}
