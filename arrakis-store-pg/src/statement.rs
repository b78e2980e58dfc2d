//! Statements of many rows whose text never changes, so that each is prepared once per connection.
//!
//! Diesel's own insert of many rows has a text for each number of rows. Here the rows are columns:
//! arrays that `unnest` turns into rows again.

use std::fmt;
use std::marker::PhantomData;

use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::serialize::ToSql;
use diesel::sql_types::{HasSqlType, Untyped};

/// SQL with a `?` for each value, and the values. `ST` is the type of the rows that it returns.
pub(crate) struct Statement<'a, ST = Untyped> {
    sql: &'static str,
    values: Vec<Box<dyn Bind + Send + Sync + 'a>>,
    rows: PhantomData<fn() -> ST>,
}

impl<'a, ST> Statement<'a, ST> {
    /// A statement without its values.
    pub(crate) fn new(sql: &'static str) -> Self {
        Self { sql, values: Vec::new(), rows: PhantomData }
    }

    /// Gives the next `?` a value of the SQL type `T`.
    #[must_use]
    pub(crate) fn bind<T>(mut self, value: impl ToSql<T, Pg> + Send + Sync + 'a) -> Self
    where
        T: 'a,
        Pg: HasSqlType<T>,
    {
        self.values.push(Box::new(Value { value, sql_type: PhantomData::<fn() -> T> }));
        self
    }
}

impl<ST> fmt::Debug for Statement<'_, ST> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement").field("sql", &self.sql).finish_non_exhaustive()
    }
}

impl<ST> QueryFragment<Pg> for Statement<'_, ST> {
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let mut values = self.values.iter();
        for (n, part) in self.sql.split('?').enumerate() {
            if n > 0
                && let Some(value) = values.next()
            {
                value.push(pass.reborrow())?;
            }
            pass.push_sql(part);
        }
        Ok(())
    }
}

/// The text is the identity.
impl<ST> QueryId for Statement<'_, ST> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<ST> Query for Statement<'_, ST> {
    type SqlType = ST;
}

/// A value that knows how it is bound.
trait Bind {
    fn push<'b>(&'b self, pass: AstPass<'_, 'b, Pg>) -> QueryResult<()>;
}

struct Value<V, T> {
    value: V,
    sql_type: PhantomData<fn() -> T>,
}

impl<V, T> Bind for Value<V, T>
where
    V: ToSql<T, Pg>,
    Pg: HasSqlType<T>,
{
    fn push<'b>(&'b self, mut pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        pass.push_bind_param::<T, V>(&self.value)
    }
}
