//! The query of a request to a table: filters, columns, order and page.

use serde_json::{Map, Value, json};

use super::super::error::{rest, rest_with};
use super::table::{Row, Type, check, column_type};
use crate::http::Answer;

/// What a query asks for.
#[derive(Debug, Default)]
pub(crate) struct Query {
    filters: Vec<Filter>,
    select: Option<Vec<String>>,
    order: Vec<(String, Direction)>,
    pub(crate) limit: Option<usize>,
    pub(crate) offset: usize,
    pub(crate) on_conflict: Option<String>,
    /// The columns that a bulk insert takes; others are ignored.
    pub(crate) columns: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ascending,
    Descending,
}

#[derive(Debug)]
struct Filter {
    column: String,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Equal(String),
    NotEqual(String),
    Greater(String),
    Less(String),
    AtLeast(String),
    AtMost(String),
    In(Vec<String>),
    Null,
}

impl Query {
    pub(crate) fn parse(parameters: &[(String, String)]) -> Result<Self, Answer> {
        let mut query = Self::default();
        for (name, value) in parameters {
            let number = || value.parse().ok();
            match name.as_str() {
                "select" if value == "*" => {}
                "select" => query.select = Some(names(value, "42703")?),
                "columns" => query.columns = Some(names(value, "PGRST204")?),
                "order" => query.order = order(value)?,
                "limit" => query.limit = number(),
                "offset" => query.offset = number().unwrap_or(0),
                "on_conflict" => query.on_conflict = Some(value.clone()),
                "apikey" => {}
                column => query.filters.push(Filter::parse(column, value)?),
            }
        }
        Ok(query)
    }

    pub(crate) fn matches(&self, row: &Row) -> bool {
        self.filters.iter().all(|filter| filter.matches(row))
    }

    pub(crate) fn select(&self, row: &Row) -> Value {
        let Some(columns) = &self.select else {
            return json!(row);
        };
        let chosen = columns.iter().map(|column| {
            let value = row.get(column).cloned().unwrap_or(Value::Null);
            (column.clone(), value)
        });
        Value::Object(chosen.collect::<Map<_, _>>())
    }

    pub(crate) fn sort(&self, rows: &mut [&Row]) {
        let text = |row: &Row, column: &str| {
            let value = row.get(column).and_then(Value::as_str);
            value.map(str::to_owned)
        };
        rows.sort_by(|one, other| {
            let orders = self.order.iter().map(|(column, direction)| {
                let ordering = text(one, column).cmp(&text(other, column));
                match direction {
                    Direction::Ascending => ordering,
                    Direction::Descending => ordering.reverse(),
                }
            });
            orders.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
        });
    }
}

impl Filter {
    fn parse(column: &str, value: &str) -> Result<Self, Answer> {
        let kind = column_type(column).ok_or_else(|| no_column(column))?;
        let (operator, operand) = value.split_once('.').unwrap_or((value, ""));
        let one = || operand_of(kind, operand);
        let test = match operator {
            "eq" => Test::Equal(one()?),
            "neq" => Test::NotEqual(one()?),
            "gt" => Test::Greater(one()?),
            "lt" => Test::Less(one()?),
            "gte" => Test::AtLeast(one()?),
            "lte" => Test::AtMost(one()?),
            "is" if operand == "null" => Test::Null,
            "in" => {
                let list = operand.strip_prefix('(');
                let list = list.and_then(|list| list.strip_suffix(')'));
                let list = list.ok_or_else(|| unparsable(value))?;
                let items = list.split(',').filter(|item| !item.is_empty());
                let items = items.map(|item| operand_of(kind, item.trim_matches('"')));
                Test::In(items.collect::<Result<_, _>>()?)
            }
            _ => return Err(unparsable(value)),
        };
        Ok(Self {
            column: column.to_owned(),
            test,
        })
    }

    fn matches(&self, row: &Row) -> bool {
        let Some(value) = row.get(&self.column).and_then(Value::as_str) else {
            return matches!(self.test, Test::Null);
        };
        match &self.test {
            Test::Equal(other) => value == other,
            Test::NotEqual(other) => value != other,
            Test::Greater(other) => value > other.as_str(),
            Test::Less(other) => value < other.as_str(),
            Test::AtLeast(other) => value >= other.as_str(),
            Test::AtMost(other) => value <= other.as_str(),
            Test::In(others) => others.iter().any(|other| other == value),
            Test::Null => false,
        }
    }
}

/// Reads an operand as its column stores it.
fn operand_of(kind: Type, operand: &str) -> Result<String, Answer> {
    let value = check(kind, &json!(operand))?;
    Ok(value.as_str().unwrap_or_default().to_owned())
}

fn names(list: &str, code: &str) -> Result<Vec<String>, Answer> {
    let names = list.split(',').map(|name| name.trim().trim_matches('"'));
    let names: Vec<String> = names.map(str::to_owned).collect();
    match names.iter().find(|name| column_type(name).is_none()) {
        None => Ok(names),
        Some(unknown) if code == "42703" => Err(no_column(unknown)),
        Some(unknown) => Err(no_cached_column(unknown)),
    }
}

fn order(list: &str) -> Result<Vec<(String, Direction)>, Answer> {
    let terms = list.split(',').map(|term| {
        let (column, direction) = match term.split_once('.') {
            Some((column, "desc")) => (column, Direction::Descending),
            Some((column, _)) => (column, Direction::Ascending),
            None => (term, Direction::Ascending),
        };
        match column_type(column) {
            Some(_) => Ok((column.to_owned(), direction)),
            None => Err(no_column(column)),
        }
    });
    terms.collect()
}

fn no_column(column: &str) -> Answer {
    let message = format!("column chats.{column} does not exist");
    rest(400, "42703", &message)
}

/// Refuses a body with a column that the table lacks.
pub(crate) fn no_cached_column(column: &str) -> Answer {
    let message = format!("Could not find the '{column}' column of 'chats' in the schema cache");
    rest(400, "PGRST204", &message)
}

fn unparsable(value: &str) -> Answer {
    let message = format!("\"failed to parse filter ({value})\" (line 1, column 1)");
    let details = json!("unexpected input expecting \"not\" or operator (eq, gt, ...)");
    rest_with(400, "PGRST100", &message, details, Value::Null)
}
