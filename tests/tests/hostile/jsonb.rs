//! What a worker keeps of an answer is what jsonb can hold, within its bound; and both sides
//! measure alike.

use pgsaga_sql::contract::JsonSize;
use pgsaga_tests::Database;
use pgsaga_worker::execute::call;

use crate::dice::Dice;
use crate::{count, seed};

const BATCH: usize = 1_000;
/// Of an answer, printed.
const BYTES_MAX: usize = 65_536;

/// The printed length of each text as jsonb; null where it is none.
const PRINTED: &str = r#"
create function public.printed(texts bytea[]) returns int[] language plpgsql as $$
declare
  lengths int[] := '{}';
  given bytea;
  length int;
begin
  foreach given in array texts loop
    begin
      length := octet_length(convert_from(given, 'UTF8')::jsonb::text);
    exception when others then
      length := null;
    end;
    lengths := lengths || length;
  end loop;
  return lengths;
end
$$"#;

const ANSWERS: [&str; 8] = [
    r#"{"id": 12345678901234567890.10, "list": [{"a/b": "x"}, null], "m~n": true, "": 0}"#,
    r#"{"b":1,"a":2,"b":{"c":[1.50e1,-0.0,1e-3]}}"#,
    r#"[1e131071, {"x": "\u00e9\ud83d\ude00\n\"\\\/"}]"#,
    r#"  "text"  "#,
    "\u{feff}{\"dtm_result\": \"SUCCESS\", \"n\": 0.000}",
    "7",
    r#"{"a":{"a":{"a":{"a":[[[[{}]]]]}}},"a":[]}"#,
    "null",
];

#[tokio::test]
async fn what_is_kept_of_an_answer_is_jsonb_within_the_bound() {
    let db = Database::new().await;
    sqlx::raw_sql(PRINTED).execute(db.pool()).await.unwrap();
    let seed = seed();
    let mut dice = Dice::new(seed);
    let (mut left, mut kept_of_all, mut too_long) = (count(), 0, 0);
    while left > 0 {
        let batch = left.min(BATCH);
        left -= batch;
        let texts: Vec<Vec<u8>> = (0..batch)
            .map(|_| {
                let text = if dice.below(3) == 0 { dice.steps() } else { dice.of(&ANSWERS).to_owned() };
                dice.mutated(text.as_bytes())
            })
            .collect();
        // What is kept, in the place of the body; the body itself, where nothing is.
        let kept: Vec<Option<String>> = texts.iter().map(|text| call::json(text, BYTES_MAX)).collect();
        let sent: Vec<&[u8]> = kept
            .iter()
            .zip(&texts)
            .map(|(kept, text)| kept.as_ref().map_or(&text[..], |kept| kept.as_bytes()))
            .collect();
        let printed: Vec<Option<i32>> =
            sqlx::query_scalar("select public.printed($1)").bind(&sent).fetch_one(db.pool()).await.unwrap();
        for ((text, kept), printed) in texts.iter().zip(&kept).zip(printed) {
            let told = format!("{printed:?} bytes; HOSTILE_SEED={seed}\n{}", String::from_utf8_lossy(text));
            let printed = printed.map(|bytes| usize::try_from(bytes).unwrap());
            match kept {
                Some(kept) => {
                    kept_of_all += 1;
                    assert!(printed.is_some_and(|bytes| bytes <= BYTES_MAX), "kept: {told}");
                    assert_eq!(JsonSize::of_text(kept).map(|size| size.bytes), printed, "{told}");
                }
                None => {
                    // Refused with cause: no jsonb, too long or too deep.
                    let size = std::str::from_utf8(text).ok().and_then(JsonSize::of_text);
                    // Deeper than its own stack Postgres does not read either.
                    if size.is_none_or(|size| size.depth <= 1_000) {
                        assert_eq!(size.map(|size| size.bytes), printed, "{told}");
                    }
                    let too_big = size.is_some_and(|size| size.bytes > BYTES_MAX || size.depth > 64);
                    assert!(size.is_none() || too_big, "{told}");
                    too_long += usize::from(too_big);
                }
            }
        }
    }
    println!("{kept_of_all} kept, {too_long} too long or too deep, of {}", count());
    assert!(kept_of_all > count() / 20 && too_long > count() / 1_000, "{kept_of_all}, {too_long}");
}
