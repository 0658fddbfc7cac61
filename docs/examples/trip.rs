//! The saga of `trip.sql`, with the crate `pgsaga-producer`.

use std::time::Duration;

use pgsaga_producer::{Saga, Status, Step, Waiter, answer_of};
use serde_json::json;
use sqlx::PgPool;

/// Books a trip at `services`, such as `http://127.0.0.1:8080`, and waits for the end.
pub async fn book(pool: &PgPool, services: &str) -> Result<Status, Box<dyn std::error::Error>> {
    let url = |path: &str| format!("{services}/{path}");
    let hotel = Step::new("hotel").after_none().action(url("hotel/book")).compensate(url("hotel/cancel"));
    let flight = Step::new("flight")
        .after_none()
        .action(url("flight/book"))
        .compensate(url("flight/cancel"))
        .compensate_payload(&json!({"booking": answer_of("flight", "/message")}));
    let payment = Step::new("payment")
        .after(["hotel", "flight"])
        .pivot()
        .action(url("payment/charge"))
        .payload(&json!({"cents": 99000}))
        .retry_interval(Duration::from_secs(2));
    let mail =
        Step::new("mail").action(url("mail/send")).payload(&json!({"receipt": answer_of("payment", "")}));
    let trip = Saga::new()
        .gid("trip-2")?
        .timeout_to_fail(Duration::from_secs(600))
        .label("customer", "8")
        .result_mapping(&json!({
            "hotel": answer_of("hotel", "/message"),
            "flight": answer_of("flight", "/message"),
        }))
        .step(hotel)
        .step(flight)
        .step(payment)
        .step(mail);

    let mut tx = pool.begin().await?;
    // … insert the order itself, in `tx` …
    trip.submit(&mut *tx).await?;
    tx.commit().await?;

    // Waiting is optional. Keep one Waiter for the whole process.
    Ok(Waiter::new(pool.clone()).wait("trip-2", Duration::from_secs(30)).await?)
}
