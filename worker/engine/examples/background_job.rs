//! A background job is a saga of one step. It runs in this process, at least once, and is retried
//! until it succeeds. `DATABASE_URL` names a database that `pgsaga migrate` has prepared.

use pgsaga_producer::Saga;
use pgsaga_worker::{Call, HandlerError, Participant, Worker};

async fn send(call: Call<String>) -> Result<(), HandlerError> {
    println!("mail to {}, under the key {}", call.payload, call.key());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("DATABASE_URL")?;
    let job = Saga::single("participant:mail/send", "ann@example.com").gid("welcome-ann")?;
    job.submit(&sqlx::PgPool::connect(&url).await?).await?;
    let mail = Participant::new("mail").action("send", send);
    Worker::builder(url).participant(mail).run_until(async { drop(tokio::signal::ctrl_c().await) }).await?;
    Ok(())
}
