//! `pgsaga list --watch`.

use std::collections::HashMap;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::time::Duration;

use chrono::Utc;
use console::{Term, style};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::signal::unix::{SignalKind, signal};

use super::{List, row};
use crate::error::Error;
use crate::operate::{complain, connect, out, out_json};
use crate::signals;
use crate::words::time;
use pgsaga_worker::db::Class;

/// A look that takes longer is given up, and the next one uses another connection.
const LOOK_MAX: Duration = Duration::from_secs(30);

/// Follows until a signal or until nobody reads any more. A database that goes away is waited for.
pub(crate) async fn run(list: &List, every: Duration) -> Result<(), Error> {
    let io = |source| Error::Io { doing: "install the signal handlers".to_owned(), source };
    let mut terminate = signal(SignalKind::terminate()).map_err(io)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io)?;
    signals::release();
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        result = follow(list, every) => result,
    }
}

async fn follow(list: &List, every: Duration) -> Result<(), Error> {
    let mut pool = connect(&list.database.database_url).await?;
    let terminal = Term::stdout();
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut known: HashMap<String, String> = HashMap::new();
    let mut away = false;
    loop {
        ticks.tick().await;
        if nobody_reads() {
            return Ok(());
        }
        let look = tokio::time::timeout(LOOK_MAX, list.read(&pool)).await;
        let rows = match look.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
            Ok(rows) => rows,
            Err(error) if matches!(Class::of(&error), Class::Connection | Class::Conflict) => {
                if !away {
                    let why = match error {
                        sqlx::Error::PoolTimedOut => "no answer".to_owned(),
                        error => error.to_string(),
                    };
                    complain(format_args!("the database: {why}; trying again"));
                }
                away = true;
                // Of several hosts another may be the primary by now.
                if let Ok(Ok(again)) =
                    tokio::time::timeout(LOOK_MAX, connect(&list.database.database_url)).await
                {
                    pool = again;
                }
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if std::mem::take(&mut away) {
            complain("the database answers again");
        }
        if terminal.is_term() && !list.json {
            draw(&terminal, &rows, every)?;
            continue;
        }
        let mut seen = HashMap::with_capacity(rows.len());
        // The oldest first: what is appended last is the newest.
        for row in rows.iter().rev() {
            let version = row.version();
            if known.get(&row.gid) != Some(&version) {
                if list.json { out_json(row.json()?) } else { out(row.line()) }?;
            }
            seen.insert(row.gid.clone(), version);
        }
        known = seen;
    }
}

/// Draws the table from the top of the screen, as much of it as fits.
fn draw(terminal: &Term, rows: &[row::Row], every: Duration) -> Result<(), Error> {
    let io = |source| Error::Io { doing: "print the result".to_owned(), source };
    let lines_max = usize::from(terminal.size().0).saturating_sub(2);
    let table = row::table(rows).to_string();
    let mut frame =
        format!("{}\n", style(format!("{} UTC, every {} s", time(Utc::now().into()), every.as_secs())).dim());
    for line in table.lines().take(lines_max) {
        frame += line;
        frame.push('\n');
    }
    terminal.clear_screen().map_err(io)?;
    terminal.write_str(&frame).map_err(io)?;
    std::io::stdout().flush().map_err(io)
}

/// Whether the other end of the output is closed. Noticed also while there is nothing to write.
fn nobody_reads() -> bool {
    let stdout = std::io::stdout();
    let mut output = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let closed = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
    matches!(poll(&mut output, PollTimeout::ZERO), Ok(1..))
        && output[0].revents().is_some_and(|events| events.intersects(closed))
}
