//! The INSERT and the crate say the same about the same bytes.

use pgsaga_producer::{Columns, Definition};
use pgsaga_tests::Database;
use sqlx::PgPool;

use crate::cases::{self, Input};
use crate::dice::Dice;
use crate::{count, seed};

/// Texts in one round trip.
const BATCH: usize = 1_000;
/// Longer ones are the table's own business: a change in them is rarely one that counts.
const BYTES_MAX: usize = 20_000;
const GOOD_STEPS: &str = r#"[{"name": "a", "action": ""}, {"name": "b", "action": "http://b/c"}]"#;

/// What an INSERT says of each text in one column; it leaves nothing behind.
const VERDICTS: &str = r#"
create function public.verdicts(col text, steps text, texts bytea[]) returns text[] language plpgsql as $$
declare
  said text[] := '{}';
  given bytea;
begin
  foreach given in array texts loop
    begin
      if col in ('gid', 'queue') then
        execute format('insert into pgsaga.saga (steps, %I) values ($1::jsonb, $2)', col) using steps, convert_from(given, 'UTF8');
      elsif col = 'steps' then
        insert into pgsaga.saga (steps) values (convert_from(given, 'UTF8')::jsonb);
      else
        execute format('insert into pgsaga.saga (steps, %I) values ($1::jsonb, $2::jsonb)', col) using steps, convert_from(given, 'UTF8');
      end if;
      raise exception using errcode = 'PGS00', message = 'taken';
    exception when others then
      said := said || (sqlstate || ' ' || sqlerrm);
    end;
  end loop;
  return said;
end
$$"#;

#[derive(Debug, Clone, Copy)]
enum Column {
    Steps,
    Headers,
    Labels,
    ResultMapping,
    Gid,
    Queue,
}

impl Column {
    const ALL: [Column; 6] =
        [Column::Steps, Column::Headers, Column::Labels, Column::ResultMapping, Column::Gid, Column::Queue];

    fn name(self) -> &'static str {
        match self {
            Column::Steps => "steps",
            Column::Headers => "headers",
            Column::Labels => "labels",
            Column::ResultMapping => "result_mapping",
            Column::Gid => "gid",
            Column::Queue => "queue",
        }
    }

    /// What the crate says. A text that is no UTF-8 does not even reach it.
    fn crate_says(self, bytes: &[u8]) -> Option<String> {
        let Ok(text) = std::str::from_utf8(bytes) else { return Some("not UTF-8".to_owned()) };
        let good = Columns { steps: GOOD_STEPS.to_owned(), ..Columns::default() };
        let text = text.to_owned();
        let columns = match self {
            Column::Steps => Columns { steps: text, ..good },
            Column::Headers => Columns { headers: Some(text), ..good },
            Column::Labels => Columns { labels: Some(text), ..good },
            Column::ResultMapping => Columns { result_mapping: Some(text), ..good },
            Column::Gid => Columns { gid: Some(text), ..good },
            Column::Queue => Columns { queue: Some(text), ..good },
        };
        Definition::new(columns).err().map(|invalid| invalid.to_string())
    }

    /// Texts to start from, good and bad.
    fn seeds(self, dice: &mut Dice) -> Vec<String> {
        let steps = |dice: &mut Dice| {
            let table = cases::all().into_iter().map(|case| match case.input {
                Input::Steps(text) => text,
                Input::Saga(text) => part(&text, "steps").unwrap_or(text),
            });
            let mut texts: Vec<String> = table.collect();
            texts.extend((0..300).map(|_| dice.steps()));
            texts.extend((0..300).filter_map(|_| part(&dice.ordered_saga(), "steps")));
            texts
        };
        let column = |name: &str| {
            let columns = cases::all().into_iter().filter_map(|case| match case.input {
                Input::Saga(text) => part(&text, name),
                Input::Steps(_) => None,
            });
            columns.collect::<Vec<_>>()
        };
        let plain =
            |name: &str| column(name).iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
        let mut texts = match self {
            Column::Steps => steps(dice),
            Column::Headers => column("headers"),
            Column::Labels => column("labels"),
            Column::ResultMapping => {
                let mut texts = column("result_mapping");
                texts.push(
                    r#"{"x": [{"$from": "a", "path": "/p/0"}, {"$literal": {"$from": 1}}], "y": 1.50}"#
                        .to_owned(),
                );
                texts
            }
            Column::Gid => plain("gid"),
            Column::Queue => plain("queue"),
        };
        texts.retain(|text| text.len() <= BYTES_MAX);
        assert!(texts.len() >= 5, "{self:?}: {texts:?}");
        texts
    }
}

/// A column's text out of an object of columns.
fn part(saga: &str, column: &str) -> Option<String> {
    let columns: std::collections::BTreeMap<&str, &serde_json::value::RawValue> =
        serde_json::from_str(saga).ok()?;
    columns.get(column).map(|value| value.get().to_owned())
}

async fn insert_says(pool: &PgPool, column: Column, texts: &[Vec<u8>]) -> Vec<String> {
    sqlx::query_scalar("select public.verdicts($1, $2, $3)")
        .bind(column.name())
        .bind(GOOD_STEPS)
        .bind(texts)
        .fetch_one(pool)
        .await
        .unwrap()
}

/// The two agree: on the verdict, and on the words wherever ours are asked for.
fn agree(insert: &str, crate_says: Option<&str>) -> bool {
    let (sqlstate, words) = insert.split_at(5);
    match (sqlstate, crate_says) {
        ("PGS00", said) => said.is_none(),
        ("23514", said) => said == Some(&words[1..]),
        // No JSON, an escape or a number that jsonb cannot hold.
        ("22P02" | "22P05" | "22003", Some(said)) => said.ends_with("allowed: JSON that jsonb can hold"),
        // No UTF-8, or NUL; deeper than Postgres's own stack.
        ("22021" | "54001", Some(_)) => true,
        _ => false,
    }
}

#[tokio::test]
async fn the_insert_and_the_crate_say_the_same_about_changed_bytes() {
    let db = Database::new().await;
    sqlx::raw_sql(VERDICTS).execute(db.pool()).await.unwrap();
    let seed = seed();
    let mut dice = Dice::new(seed);
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for column in Column::ALL {
        let seeds = column.seeds(&mut dice);
        // Most of the rules are about steps.
        let mut left = if matches!(column, Column::Steps) { count() / 2 } else { count() / 10 };
        while left > 0 {
            let batch = left.min(BATCH);
            left -= batch;
            let texts: Vec<Vec<u8>> = (0..batch)
                .map(|_| {
                    let text = &seeds[dice.below(seeds.len())];
                    dice.mutated(text.as_bytes())
                })
                .collect();
            let said = insert_says(db.pool(), column, &texts).await;
            assert_eq!(said.len(), texts.len());
            for (text, insert) in texts.iter().zip(&said) {
                let crate_says = column.crate_says(text);
                assert!(
                    agree(insert, crate_says.as_deref()),
                    "{column:?}: the INSERT says {insert:?}, the crate {crate_says:?}; HOSTILE_SEED={seed}\n{}\n{text:?}",
                    String::from_utf8_lossy(text)
                );
                *seen.entry(insert[..5].to_owned()).or_default() += 1;
            }
        }
    }
    println!("by SQLSTATE: {seen:?}");
    // Enough of each kind, or it tests little.
    for (sqlstate, least) in [("PGS00", 20), ("23514", 10), ("22P02", 10), ("22P05", 500), ("22021", 50)] {
        let times = seen.get(sqlstate).copied().unwrap_or(0);
        assert!(times > count() / least, "{sqlstate}: {times} in {seen:?}");
    }
    let left: i64 =
        sqlx::query_scalar("select count(*) from pgsaga.saga").fetch_one(db.pool()).await.unwrap();
    assert_eq!(left, 0, "what was taken was undone again");
}

/// The table's own texts, unchanged: the function of this test says what an INSERT says.
#[tokio::test]
async fn this_test_sees_what_an_insert_says() {
    let db = Database::new().await;
    sqlx::raw_sql(VERDICTS).execute(db.pool()).await.unwrap();
    let (mut texts, mut expected) = (Vec::new(), Vec::new());
    for case in cases::all() {
        if let Input::Steps(text) = case.input {
            texts.push(text.into_bytes());
            expected.push(case.insert.or(case.error));
        }
    }
    for ((text, insert), expected) in
        texts.iter().zip(insert_says(db.pool(), Column::Steps, &texts).await).zip(expected)
    {
        let agrees = match expected.as_deref().map(|words| words.strip_prefix('~').ok_or(words)) {
            None => insert.starts_with("PGS00"),
            Some(Ok(part)) => insert.contains(part),
            Some(Err(words)) => insert[6..] == *words,
        };
        assert!(agrees, "{insert} is not {expected:?}: {}", String::from_utf8_lossy(text));
    }
    // The control: where the two disagree, the comparison says so.
    assert!(
        !agree("PGS00 taken", Some("refused")) && !agree("23514 a", Some("b")) && !agree("23514 a", None)
    );
    assert!(!agree("22P02 x", Some("steps: found 1; allowed: 2")) && !agree("XX000 x", Some("x")));
}

/// A saga's file, all columns in one text, changed: never a panic, and always an answer.
#[test]
fn a_changed_file_is_checked_to_an_end() {
    let mut dice = Dice::new(seed());
    let texts: Vec<String> = cases::all()
        .into_iter()
        .map(|case| match case.input {
            Input::Steps(text) | Input::Saga(text) => text,
        })
        .filter(|text| text.len() <= BYTES_MAX)
        .collect();
    for _ in 0..count() {
        let text = &texts[dice.below(texts.len())];
        let bytes = dice.mutated(text.as_bytes());
        if let Err(invalid) = Definition::from_json(&String::from_utf8_lossy(&bytes)) {
            assert!(!invalid.place().is_empty() && !invalid.allowed().is_empty(), "{invalid}");
        }
    }
}
