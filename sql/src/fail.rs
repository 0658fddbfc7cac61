//! Fail points: named places where a process of the tests can end as in a crash. They exist only
//! with the feature `fail-points`, which no released build has.
//!
//! A process dies at the point that `FAIL_AT` names, when it passes the point while the file
//! `FAIL_WHEN` exists. So a test chooses the situation. Each statement has the two points
//! `NAME:before` and `NAME:after`; other points are named in the code.

#[cfg(feature = "fail-points")]
mod armed {
    use std::env;
    use std::path::PathBuf;
    use std::sync::OnceLock;

    pub(super) fn pass(name: &str) {
        static ARMED: OnceLock<Option<(String, PathBuf)>> = OnceLock::new();
        let armed =
            ARMED.get_or_init(|| Some((env::var("FAIL_AT").ok()?, PathBuf::from(env::var_os("FAIL_WHEN")?))));
        if let Some((at, when)) = armed
            && at == name
            && when.exists()
        {
            eprintln!("fail point {name}");
            std::process::abort();
        }
    }

    pub(super) fn statement(sql: &str, moment: &str) {
        if let Some(statement) = crate::query::all().find(|statement| statement.sql == sql) {
            pass(&format!("{}:{moment}", statement.name));
        }
    }
}

/// Before a statement is sent.
#[inline]
pub fn before(sql: &str) {
    #[cfg(feature = "fail-points")]
    armed::statement(sql, "before");
    let _ = sql;
}

/// After a statement has been answered.
#[inline]
pub fn after(sql: &str) {
    #[cfg(feature = "fail-points")]
    armed::statement(sql, "after");
    let _ = sql;
}

/// A place that is not beside a statement.
#[inline]
pub fn point(name: &str) {
    #[cfg(feature = "fail-points")]
    armed::pass(name);
    let _ = name;
}
