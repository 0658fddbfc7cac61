//! What a statement is, and how a struct's fields become its values.

use sqlx::postgres::PgArguments;
use sqlx::{Encode, Postgres, Type};

/// A statement with its values bound.
pub type Query<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

/// One statement, which is one file of `queries/`.
#[derive(Debug, Clone, Copy)]
pub struct Statement {
    /// The folder within `queries/`, which says the purpose.
    pub folder: &'static str,
    /// The file's name without its extension; no two folders share one.
    pub name: &'static str,
    /// The file's text.
    pub sql: &'static str,
    /// How many values its struct binds; `None` where it has no struct.
    pub values: Option<usize>,
}

/// One value of a statement, or several in the order of its parameters.
pub(super) trait Values<'t> {
    const COUNT: usize;

    fn bind_to<'q>(&self, query: Query<'q>) -> Query<'q>;
}

impl<'t, T: Encode<'t, Postgres> + Type<Postgres>> Values<'t> for T {
    const COUNT: usize = 1;

    fn bind_to<'q>(&self, query: Query<'q>) -> Query<'q> {
        query.bind(self)
    }
}

/// An array that is bound as null while all its elements are null or false. Most columns of a
/// settle are so while all goes well, and `unnest()` pads a null for less than it reads an array.
#[derive(Debug, Clone, Default)]
pub(super) struct Sparse<T> {
    /// Elements before `values` that are null or false: they need no memory yet.
    skipped: usize,
    values: Vec<T>,
    /// How many elements to make room for, once there is a value.
    expected: usize,
}

impl<T: Clone + Default + PartialEq> Sparse<T> {
    pub(super) fn reserve(&mut self, additional: usize) {
        self.expected = self.skipped + self.values.len() + additional;
    }

    pub(super) fn push(&mut self, value: T) {
        if self.values.is_empty() && value == T::default() {
            self.skipped += 1;
            return;
        }
        if self.values.is_empty() {
            self.values.reserve(self.expected.max(self.skipped + 1));
            self.values.resize(std::mem::take(&mut self.skipped), T::default());
        }
        self.values.push(value);
    }
}

impl<'t, T: 't> Values<'t> for Sparse<T>
where
    Vec<T>: Encode<'t, Postgres> + Type<Postgres>,
{
    const COUNT: usize = 1;

    fn bind_to<'q>(&self, query: Query<'q>) -> Query<'q> {
        if self.values.is_empty() { query.bind(None::<Vec<T>>) } else { query.bind(&self.values) }
    }
}

/// Declares the statements of a folder: constants, and structs whose fields are the values in the
/// order of `$1`, `$2`, …. A field that is a struct of [`columns!`] or [`statements!`] stands for
/// as many values as it has fields.
macro_rules! statements {
    (folder $folder:literal; $($items:tt)*) => {
        statements! { @item $folder [] $($items)* }
    };
    (@item $folder:literal [$($all:tt)*]) => {
        pub(super) const ALL: &[$crate::query::Statement] = &[$($all)*];
    };
    (
        @item $folder:literal [$($all:tt)*]
        $(#[$doc:meta])* const $NAME:ident = $file:literal;
        $($rest:tt)*
    ) => {
        $(#[$doc])*
        pub const $NAME: &str = include_str!(concat!("../../queries/", $folder, "/", $file, ".sql"));

        statements! {
            @item $folder [$($all)* $crate::query::Statement {
                folder: $folder,
                name: $file,
                sql: $NAME,
                values: None,
            },]
            $($rest)*
        }
    };
    (
        @item $folder:literal [$($all:tt)*]
        $(#[$doc:meta])* struct $Name:ident $(<$life:lifetime>)? = $file:literal {
            $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)?
        }
        $($rest:tt)*
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default)]
        pub struct $Name $(<$life>)? {
            $($(#[$field_doc])* pub $field: $type),*
        }

        impl $(<$life>)? $Name $(<$life>)? {
            /// The text of the statement.
            pub const SQL: &'static str =
                include_str!(concat!("../../queries/", $folder, "/", $file, ".sql"));

            /// The statement with its values bound.
            pub fn query<'q>(&self) -> $crate::query::Query<'q> {
                self.query_with(Self::SQL)
            }

            /// The same values for another text, for tests that take a rule out of the statement.
            pub fn query_with<'q>(&self, sql: impl sqlx::SqlSafeStr) -> $crate::query::Query<'q> {
                $crate::query::statement::Values::bind_to(self, sqlx::query(sql))
            }
        }

        values! { $Name $(<$life>)? { $($field: $type),* } }

        statements! {
            @item $folder [$($all)* $crate::query::Statement {
                folder: $folder,
                name: $file,
                sql: $Name::SQL,
                values: Some(<$Name as $crate::query::statement::Values>::COUNT),
            },]
            $($rest)*
        }
    };
}

/// Declares a row, whose fields are values, and the store of such rows, which a statement binds as
/// one array a field. A field `as Sparse` is bound as null while it has nothing to say.
macro_rules! columns {
    (
        $(#[$doc:meta])* struct $Row:ident $(<$life:lifetime>)? in $Columns:ident {
            $($(#[$field_doc:meta])* $field:ident: $type:ty $(as $column:ident)?),* $(,)?
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default)]
        pub struct $Row $(<$life>)? {
            $($(#[$field_doc])* pub $field: $type),*
        }

        #[doc = concat!("[`", stringify!($Row), "`]s, as one array a field.")]
        #[derive(Debug, Clone, Default)]
        pub struct $Columns $(<$life>)? {
            $($field: column!($type $(, $column)?)),*
        }

        impl $(<$life>)? $Columns $(<$life>)? {
            /// Makes room for so many more rows.
            pub fn reserve(&mut self, additional: usize) {
                $(self.$field.reserve(additional);)*
            }

            pub fn push(&mut self, row: $Row $(<$life>)?) {
                $(self.$field.push(row.$field);)*
            }
        }

        impl $(<$life>)? Extend<$Row $(<$life>)?> for $Columns $(<$life>)? {
            fn extend<T: IntoIterator<Item = $Row $(<$life>)?>>(&mut self, rows: T) {
                let rows = rows.into_iter();
                self.reserve(rows.size_hint().0);
                rows.for_each(|row| self.push(row));
            }
        }

        impl $(<$life>)? FromIterator<$Row $(<$life>)?> for $Columns $(<$life>)? {
            fn from_iter<T: IntoIterator<Item = $Row $(<$life>)?>>(rows: T) -> Self {
                let mut columns = Self::default();
                columns.extend(rows);
                columns
            }
        }

        values! { $Row $(<$life>)? { $($field: $type),* } }
        values! { $Columns $(<$life>)? { $($field: column!($type $(, $column)?)),* } }
    };
}

macro_rules! column {
    ($type:ty) => { Vec<$type> };
    ($type:ty, $column:ident) => { $crate::query::statement::$column<$type> };
}

/// Binds the fields of a struct in their order.
macro_rules! values {
    ($Name:ident $(<$life:lifetime>)? { $($field:ident: $type:ty),* }) => {
        impl<'t $(, $life: 't)?> $crate::query::statement::Values<'t> for $Name $(<$life>)? {
            const COUNT: usize = 0 $(+ <$type as $crate::query::statement::Values<'t>>::COUNT)*;

            fn bind_to<'q>(&self, query: $crate::query::Query<'q>) -> $crate::query::Query<'q> {
                $(let query = $crate::query::statement::Values::bind_to(&self.$field, query);)*
                query
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::Sparse;

    #[test]
    fn a_sparse_column_keeps_the_places_of_its_elements() {
        let mut column = Sparse::default();
        column.push(None);
        column.push(None);
        assert!(column.values.is_empty(), "it is bound as null");
        column.push(Some(3));
        column.push(None);
        assert_eq!(column.values, [None, None, Some(3), None]);
    }
}
