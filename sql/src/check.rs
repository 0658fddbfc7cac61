//! Invariants of the schema, as queries.

/// The newest history partition: that of the largest `bigint`.
const NEWEST: i64 = i64::MAX / WIDTH;
/// Saga ids of a history partition, as in `make_history_partitions`.
const WIDTH: i64 = 1_000_000;
const HISTORY: &str = "pgsaga.history";

/// An invariant of the schema: a query that returns one row for each place where it is broken.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// The file's name, which says the rule.
    pub name: &'static str,
    /// The query. Its columns are `gid` and `found`, both text. `gid` is null where no single saga
    /// is at fault.
    pub sql: &'static str,
}

impl Check {
    pub(crate) const fn new(name: &'static str, sql: &'static str) -> Check {
        Check { name, sql }
    }

    /// The query for a database whose history has rows in these partitions only, ascending
    /// ([`crate::query::FILLED_HISTORY_PARTITIONS`]). The planner opens no other partition: with
    /// 2,009 empty ones, planning all checks took three minutes.
    pub fn among(&self, partitions: &[i64]) -> String {
        let check = rename_history(self.sql);
        let ids = ids_of(partitions);
        format!(
            "with history as not materialized (select * from {HISTORY} where {ids})\nselect gid, found from (\n{check}\n) broken"
        )
    }
}

/// A condition that holds for the saga ids of these partitions.
fn ids_of(partitions: &[i64]) -> String {
    let runs = partitions.chunk_by(|before, next| before + 1 == *next);
    let ids = runs.filter_map(|run| Some((*run.first()?, *run.last()?))).map(|(first, last)| {
        let below =
            if last < NEWEST { format!(" and saga_id < {}", (last + 1) * WIDTH) } else { String::new() };
        format!("saga_id >= {}{below}", first * WIDTH)
    });
    let ids: Vec<String> = ids.collect();
    // No saga has such an id. For `false` the planner opens every partition.
    if ids.is_empty() { "saga_id < 0".to_owned() } else { ids.join(" or ") }
}

/// The query, with the name `history` for the table. Longer names stay.
fn rename_history(sql: &str) -> String {
    let mut parts = sql.split(HISTORY);
    let mut renamed = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_longer = part.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_');
        renamed.push_str(if is_longer { HISTORY } else { "history" });
        renamed.push_str(part);
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::{Check, ids_of};

    #[test]
    fn a_run_of_partitions_is_one_range_of_ids() {
        assert_eq!(ids_of(&[]), "saga_id < 0");
        assert_eq!(
            ids_of(&[0, 1, 2, 9, 9_223_372_036_854]),
            "saga_id >= 0 and saga_id < 3000000 or saga_id >= 9000000 and saga_id < 10000000 \
             or saga_id >= 9223372036854000000"
        );
    }

    #[test]
    fn only_the_table_is_renamed() {
        let check = Check::new("x", "select last_value from pgsaga.history_seq, pgsaga.history h -- end");
        assert_eq!(
            check.among(&[0]),
            "with history as not materialized (select * from pgsaga.history where saga_id >= 0 and saga_id < 1000000)\n\
             select gid, found from (\nselect last_value from pgsaga.history_seq, history h -- end\n) broken"
        );
    }
}
