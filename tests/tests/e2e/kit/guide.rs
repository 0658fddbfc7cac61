use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use pgsaga_producer::{Definition, Saga, Step};
use pgsaga_test::{Database, Kit};
use pgsaga_worker::{Call, HandlerError, Participant};
use serde_json::{Value, json};

/// A warehouse that keeps its duties. Yours has tables in place of the map.
#[derive(Default)]
struct Warehouse {
    /// What is held, by the key of the action; `None` where it was given back.
    held: Mutex<HashMap<String, Option<u32>>>,
}

impl Warehouse {
    fn participant(self: &Arc<Self>) -> Participant {
        let (reserve, release) = (Arc::clone(self), Arc::clone(self));
        Participant::new("warehouse")
            .action("reserve", move |call| Arc::clone(&reserve).reserve(call))
            .compensate("release", move |call| Arc::clone(&release).release(call))
    }

    async fn reserve(self: Arc<Self>, call: Call<u32>) -> Result<(), HandlerError> {
        if call.payload > 100 {
            return Err(HandlerError::refuse("so many are not there"));
        }
        // A key that is there already was reserved, or was released before it came.
        self.held.lock().unwrap().entry(call.key()).or_insert(Some(call.payload));
        Ok(())
    }

    async fn release(self: Arc<Self>, call: Call<u32>) -> Result<(), HandlerError> {
        // Also for an action that never came, so that it does nothing if it still comes.
        self.held.lock().unwrap().insert(call.action_key(), None);
        Ok(())
    }

    /// What the saga changes.
    fn state(&self) -> Value {
        let held = self.held.lock().unwrap();
        json!({"held": held.values().flatten().sum::<u32>()})
    }
}

fn order(bolts: u32) -> Definition {
    let reserve = |name: &str, count: u32| {
        let step = Step::new(name).payload(&count);
        step.action("participant:warehouse/reserve").compensate("participant:warehouse/release")
    };
    Saga::new().step(reserve("nuts", 8)).step(reserve("bolts", bolts)).definition().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_delivered_whole_or_not_at_all() -> Result<(), pgsaga_test::Error> {
    let database = Database::start().await?;
    let warehouse = Arc::new(Warehouse::default());
    let (served, seen) = (Arc::clone(&warehouse), Arc::clone(&warehouse));
    let kit = Kit::new(
        &database,
        move |worker| worker.participant(served.participant()),
        move || {
            let state = seen.state();
            async { Ok::<_, pgsaga_test::Error>(state) }
        },
    );

    // One run, as you expect it.
    let run = kit.run_to_end(&order(500)).await?;
    insta::assert_snapshot!(run, @r"
    failed: bolts: so many are not there
      nuts action 1: success
      bolts action 1: failure, so many are not there
      nuts compensate 1: success
    ");
    assert_eq!(warehouse.state(), json!({"held": 0}));

    // The five questions.
    let saga = order(8);
    kit.fail_each_step(&saga).await?.assert_holds();
    kit.repeat_each_call(&saga).await?.assert_holds();
    kit.lose_each_answer(&saga).await?.assert_holds();
    kit.cut_at_each_statement(&saga).await?.assert_holds();
    kit.deliver_in_the_worst_order(&saga).await?.assert_holds();
    database.clear_away().await
}
