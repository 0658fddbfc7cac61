use std::collections::HashMap;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::time::Duration;

use chrono::Utc;
use console::{Term, style};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::signal::unix::{SignalKind, signal};

use super::List;
use crate::error::Error;
use crate::operate::connect;
use crate::operate::read::list::Listed;
use crate::output::{columns, complain, out, out_json};
use crate::signals;
use crate::words::time;
use pgsaga_worker::db::Class;

/// Upper bound on the time of one reading. After it, the next reading uses another connection.
const LOOK_MAX: Duration = Duration::from_secs(30);

/// Repeats the list until a signal arrives or the output is closed. Waits for a database that
/// cannot be reached.
pub(crate) async fn run(list: &List, every: Duration) -> Result<(), Error> {
    let listen = |kind| signal(kind).map_err(Error::io("install the signal handlers"));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
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
                // With several hosts, another host may be the primary now.
                let again = tokio::time::timeout(LOOK_MAX, connect(&list.database.database_url)).await;
                let why = match again {
                    Ok(Ok(again)) => {
                        pool = again;
                        Error::from(error)
                    }
                    Ok(Err(why)) => why,
                    Err(_) => error.into(),
                };
                if !std::mem::replace(&mut away, true) {
                    complain(format_args!("{why}; trying again"));
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
        // The oldest first, so that the last line is the newest saga.
        for row in rows.iter().rev() {
            let version = version(row);
            if known.get(&row.gid) != Some(&version) {
                if list.json { out_json(super::json(row)?) } else { out(super::line(row)) }?;
            }
            seen.insert(row.gid.clone(), version);
        }
        known = seen;
    }
}

/// Draws as much of the table as fits, from the top of the screen.
fn draw(terminal: &Term, rows: &[Listed], every: Duration) -> Result<(), Error> {
    let lines_max = usize::from(terminal.size().0).saturating_sub(2);
    let table = super::table::of(rows, columns());
    let mut frame =
        format!("{}\n", style(format!("{} UTC, every {} s", time(Utc::now().into()), every.as_secs())).dim());
    for line in table.lines().take(lines_max) {
        frame += line;
        frame.push('\n');
    }
    let drawn = terminal.clear_screen().and_then(|()| terminal.write_str(&frame));
    drawn.and_then(|()| std::io::stdout().flush()).map_err(Error::io("print the result"))
}

/// The values whose change makes a line worth appending: not the seconds until the next attempt.
fn version(saga: &Listed) -> String {
    let next = saga.next.as_ref().map(|next| {
        format!("{} {} {} {:?} {}", next.step, next.op.as_str(), next.attempt, next.worker, saga.tasks)
    });
    format!("{} {:?} {}", saga.status.as_str(), saga.reason, next.unwrap_or_default())
}

/// Whether the reader of the output has closed it. Also detects this while there is nothing to
/// write.
fn nobody_reads() -> bool {
    let stdout = std::io::stdout();
    let mut output = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let closed = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
    matches!(poll(&mut output, PollTimeout::ZERO), Ok(1..))
        && output[0].revents().is_some_and(|events| events.intersects(closed))
}
