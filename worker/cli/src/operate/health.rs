//! `pgsaga health`: asks a worker for its health, in containers that have no shell and no curl.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::filter::address;
use crate::error::Error;
use crate::output::out;
use crate::words::printable;

/// A worker answers with a line. A program that answers with more is no worker.
const ANSWER_BYTES_MAX: usize = 1024;
/// Upper bound on the characters that are shown of another program's answer.
const SHOWN_CHARS_MAX: usize = 100;

/// Ask a worker on this machine whether it runs, or with --ready whether it may start work. Exits
/// with code 0, or with 1 and a line that says why not
#[derive(Debug, Args)]
pub(crate) struct Health {
    /// The --listen of the worker. If that is every address (0.0.0.0 or `[::]`), the loopback
    /// address is asked
    #[arg(long, env = "PGSAGA_LISTEN", default_value = "127.0.0.1:9464", value_name = "ADDRESS:PORT", value_parser = address)]
    listen: SocketAddr,
    /// Ask /readyz instead of /healthz. A worker that waits for Postgres or drains is not ready
    /// either
    #[arg(long)]
    ready: bool,
    /// Upper bound on the time until the answer, 1 to 60 seconds
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout_seconds: u64,
}

impl Health {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let address = self.listen;
        if address.port() == 0 {
            return Err(Error::Usage(format!(
                "--listen {address} names no port; allowed: the address that the worker logs as it starts"
            )));
        }
        let path = if self.ready { "/readyz" } else { "/healthz" };
        let answer = tokio::time::timeout(Duration::from_secs(self.timeout_seconds), ask(address, path))
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", self.timeout_seconds)));
        match answer.and_then(|(status, said)| judge(self.ready, status, &said)) {
            Ok(said) => out(format_args!("{address}: {said}")),
            Err(why) => Err(Error::Found(format!("{address}{path}: {why}"))),
        }
    }
}

/// Returns the status and the first line of the answer.
async fn ask(address: SocketAddr, path: &str) -> Result<(u16, String), String> {
    let stream = TcpStream::connect(&reached_at(address)[..])
        .await
        .map_err(|error| format!("nobody listens there: {error}"))?;
    let broken = |error: hyper::Error| format!("no HTTP answer: {error}");
    let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = requests.send_request(request).await.map_err(broken)?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| format!("an answer of {status} that is not a worker's: {error}"))?
        .to_bytes();
    Ok((status, String::from_utf8_lossy(&body).lines().next().unwrap_or_default().trim().to_owned()))
}

/// A program that listens at every address also listens at loopback. A machine with IPv6 may have
/// no `[::1]`; `[::]` then also accepts 127.0.0.1.
fn reached_at(address: SocketAddr) -> Vec<SocketAddr> {
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, address.port()));
    match address {
        SocketAddr::V4(any) if any.ip().is_unspecified() => vec![v4],
        SocketAddr::V6(any) if any.ip().is_unspecified() => vec![v6, v4],
        one => vec![one],
    }
}

/// Accepts only the answers of a worker. Any other answer comes from another program.
fn judge(ready: bool, status: u16, said: &str) -> Result<&'static str, String> {
    match (ready, status, said) {
        (false, 200, "ok") => Ok("ok"),
        (true, 200, "ready") => Ok("ready"),
        (true, 503, said) if said.starts_with("not ready: ") => Err(said.to_owned()),
        _ => Err(format!(
            "another program listens there: it answered {status} {:?}",
            printable(said, SHOWN_CHARS_MAX)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_asked_at_loopback_and_any_other_as_it_is() {
        for (listen, asked) in [
            ("0.0.0.0:9464", &["127.0.0.1:9464"][..]),
            ("[::]:9464", &["[::1]:9464", "127.0.0.1:9464"]),
            ("10.0.0.7:9464", &["10.0.0.7:9464"]),
            ("[fd00::7]:9464", &["[fd00::7]:9464"]),
        ] {
            let asked: Vec<SocketAddr> = asked.iter().map(|address| address.parse().unwrap()).collect();
            assert_eq!(reached_at(listen.parse().unwrap()), asked);
        }
    }

    #[test]
    fn only_a_workers_own_words_count() {
        assert_eq!(judge(false, 200, "ok"), Ok("ok"));
        assert_eq!(judge(true, 200, "ready"), Ok("ready"));
        assert_eq!(judge(true, 503, "not ready: stopping"), Err("not ready: stopping".to_owned()));
        for (ready, status, said) in [
            (false, 200, ""),
            (false, 200, "ready"),
            (false, 404, "ok"),
            (true, 200, "ok"),
            (true, 503, "busy"),
        ] {
            let why = judge(ready, status, said).unwrap_err();
            assert_eq!(why, format!("another program listens there: it answered {status} {said:?}"));
        }
    }
}
