//! A web application that is its own worker. Each request inserts an order and the saga that
//! completes it in one transaction; the handlers of the saga run in the same process.
//!
//! `DATABASE_URL` names a database that `pgsaga migrate` has prepared.
//! Try it: `curl --json '{"item": "chair"}' http://127.0.0.1:8080/orders`

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use pgsaga_producer::{Saga, Step};
use pgsaga_worker::{Call, HandlerError, Participant, Worker};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Deserialize)]
struct NewOrder {
    item: String,
}

#[derive(Serialize, Deserialize)]
struct Order {
    id: i64,
    item: String,
}

/// What requests and handlers share.
struct App {
    pool: PgPool,
}

impl App {
    /// Inserts the order and its saga: both exist, or neither.
    async fn order(&self, new: NewOrder) -> Result<Order, Failure> {
        let mut transaction = self.pool.begin().await?;
        let id = sqlx::query_scalar("insert into orders (item) values ($1) returning id")
            .bind(&new.item)
            .fetch_one(&mut *transaction)
            .await?;
        let order = Order { id, item: new.item };
        let saga = Saga::new()
            .gid(format!("order-{id}"))?
            .step(
                Step::new("reserve")
                    .action("participant:shop/reserve")
                    .compensate("participant:shop/release")
                    .payload(&order),
            )
            .step(Step::new("confirm").action("participant:shop/confirm").payload(&order));
        saga.submit(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(order)
    }

    async fn set_state(&self, order: &Order, state: &str) -> Result<(), HandlerError> {
        // Repeated, it changes nothing: these handlers need no barrier.
        sqlx::query("update orders set state = $2 where id = $1 and state is distinct from $2")
            .bind(order.id)
            .bind(state)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn reserve(self: Arc<Self>, call: Call<Order>) -> Result<(), HandlerError> {
        if call.payload.item == "moon" {
            return Err(HandlerError::refuse("nobody sells the moon"));
        }
        self.set_state(&call.payload, "reserved").await
    }

    async fn release(self: Arc<Self>, call: Call<Order>) -> Result<(), HandlerError> {
        self.set_state(&call.payload, "given up").await
    }

    async fn confirm(self: Arc<Self>, call: Call<Order>) -> Result<(), HandlerError> {
        self.set_state(&call.payload, "confirmed").await
    }
}

async fn order(
    State(app): State<Arc<App>>,
    Json(new): Json<NewOrder>,
) -> Result<Json<Order>, (StatusCode, String)> {
    app.order(new).await.map(Json).map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// The handlers, which share the application's state.
fn shop(app: &Arc<App>) -> Participant {
    let (reserve, release, confirm) = (Arc::clone(app), Arc::clone(app), Arc::clone(app));
    Participant::new("shop")
        .action("reserve", move |call| Arc::clone(&reserve).reserve(call))
        .compensate("release", move |call| Arc::clone(&release).release(call))
        .action("confirm", move |call| Arc::clone(&confirm).confirm(call))
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let url = std::env::var("DATABASE_URL")?;
    let pool = PgPool::connect(&url).await?;
    sqlx::query("create table if not exists orders (id bigint generated always as identity primary key, item text not null, state text)")
        .execute(&pool)
        .await?;
    let app = Arc::new(App { pool });
    let worker = Worker::builder(url).participant(shop(&app)).build()?;

    // Ctrl-C ends both: the server stops to accept requests, and the worker drains.
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        stopping.cancel();
    });
    let router = Router::new().route("/orders", post(order)).with_state(app);
    let address = std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!("http://{}", listener.local_addr()?);
    let server = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let (served, worked) = tokio::join!(server, worker.run_until(stop.cancelled()));
    served?;
    Ok(worked?)
}
