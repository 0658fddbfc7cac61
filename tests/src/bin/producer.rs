//! An application that can be killed: in one transaction it writes an order and inserts its saga,
//! as `producer/README.md` tells it. `producer DATABASE_URL one|many|abort|complete GID STEPS`; the
//! tests made the table `orders`.

use std::env;
use std::error::Error;

use pgsaga_producer::{Completion, Invalid, Saga, Step, abort, complete, submit_many};
use pgsaga_sql::fail;
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, query};

fn saga(gid: &str, urls: &[String]) -> Result<Saga, Invalid> {
    Ok(urls.iter().enumerate().fold(Saga::new().gid(gid)?, |saga, (index, url)| {
        saga.step(Step::new(format!("step-{}", index + 1)).action(url).compensate(url))
    }))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [database, how, gid, urls @ ..] = arguments.as_slice() else {
        return Err("allowed: producer DATABASE_URL one|many|abort|complete GID URL…".into());
    };
    let mut connection = PgConnection::connect(database).await?;
    let mut transaction = connection.begin().await?;
    match how.as_str() {
        "abort" => {
            abort(&mut *transaction, gid, "the customer went away").await?;
        }
        "complete" => {
            complete(&mut *transaction, gid, "approval", &Completion::success()).await?;
        }
        how => {
            query("insert into orders (gid) values ($1) on conflict (gid) do nothing")
                .bind(gid)
                .execute(&mut *transaction)
                .await?;
            match how {
                "one" => drop(saga(gid, urls)?.submit(&mut *transaction).await?),
                "many" => drop(submit_many(&mut *transaction, &[saga(gid, urls)?]).await?),
                other => return Err(format!("{other:?} is not one of one, many, abort, complete").into()),
            }
        }
    }
    fail::point("commit:before");
    transaction.commit().await?;
    fail::point("commit:after");
    Ok(())
}
