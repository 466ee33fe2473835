//! The databases that a stack can be on, and how a test looks into one from outside.

use std::net::SocketAddr;
use std::path::Path;

use secrecy::ExposeSecret as _;
use sqlx::any::install_default_drivers;
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Row as _};
use vvs_mesh::Up;

use crate::postgres::Postgres;

/// Which database; a scenario runs on both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres,
}

/// Makes a test of each scenario on each database: `on_both!(one, another)`.
#[macro_export]
macro_rules! on_both {
    ($($scenario:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test] async fn $scenario() { Box::pin(super::$scenario($crate::database::Database::Sqlite)).await; })+
        }
        mod postgres {
            $(#[tokio::test] async fn $scenario() { Box::pin(super::$scenario($crate::database::Database::Postgres)).await; })+
        }
    };
}

impl Database {
    /// A new one.
    pub async fn create(self, data_dir: &Path) -> Url {
        match self {
            Self::Sqlite => Url::file(data_dir),
            Self::Postgres => Url(Postgres::shared().await.database().await),
        }
    }
}

/// Where a stack's sessions are.
#[derive(Debug, Clone)]
pub struct Url(String);

/// Held, nobody else can write.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held for its drop")] AnyConnection);

/// One value of a database, and where it stands.
#[derive(Debug, Clone)]
pub struct Value {
    pub table: String,
    pub column: String,
    pub text: String,
}

impl Url {
    pub(crate) fn of(up: &Up, data_dir: &Path) -> Self {
        let chosen = up
            .sessions
            .database_url
            .as_ref()
            .map(|url| url.expose_secret().to_owned());
        chosen.map_or_else(|| Self::file(data_dir), Self)
    }

    fn file(data_dir: &Path) -> Self {
        Self(format!("sqlite:{}", data_dir.join("sessions.db").display()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same database of a PostgreSQL, at another address.
    pub(crate) fn at(&self, address: SocketAddr) -> String {
        let (scheme_and_user, _) = self.0.split_once('@').unwrap();
        let (_, name) = self.0.rsplit_once('/').unwrap();
        format!("{scheme_and_user}@{address}/{name}")
    }

    fn kind(&self) -> Database {
        if self.0.starts_with("sqlite:") {
            Database::Sqlite
        } else {
            Database::Postgres
        }
    }

    async fn connect(&self) -> AnyConnection {
        install_default_drivers();
        AnyConnection::connect(&self.0).await.unwrap()
    }

    /// Takes whatever lock keeps everybody else from writing.
    pub async fn lock(&self) -> Lock {
        let mut other = self.connect().await;
        let lock = match self.kind() {
            Database::Sqlite => "BEGIN EXCLUSIVE",
            Database::Postgres => {
                "BEGIN; LOCK TABLE users, sessions, feed, signing_keys IN ACCESS EXCLUSIVE MODE"
            }
        };
        sqlx::raw_sql(lock).execute(&mut other).await.unwrap();
        Lock(other)
    }

    /// Changes something behind everybody's back.
    pub async fn run(&self, statement: &'static str) {
        sqlx::raw_sql(statement)
            .execute(&mut self.connect().await)
            .await
            .unwrap();
    }

    /// The one number that a query answers.
    pub async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query)
            .fetch_one(&mut self.connect().await)
            .await
            .unwrap()
    }

    /// The texts that a query answers.
    pub async fn texts(&self, query: &'static str) -> Vec<String> {
        sqlx::query_scalar(query)
            .fetch_all(&mut self.connect().await)
            .await
            .unwrap()
    }

    /// Any column, as a text; bytes as their digits.
    fn as_text(&self, column: &str) -> String {
        match self.kind() {
            Database::Sqlite => {
                format!(
                    "iif(typeof(\"{column}\") = 'blob', hex(\"{column}\"), CAST(\"{column}\" AS \
                     TEXT))"
                )
            }
            Database::Postgres => format!("CAST(\"{column}\" AS TEXT)"),
        }
    }

    /// Every value of every table.
    pub async fn dump(&self) -> Vec<Value> {
        let mut connection = self.connect().await;
        let columns = match self.kind() {
            Database::Sqlite => {
                "SELECT t.name, c.name FROM sqlite_master t, pragma_table_info(t.name) c WHERE \
                 t.type = 'table'"
            }
            Database::Postgres => {
                "SELECT CAST(table_name AS TEXT), CAST(column_name AS TEXT) FROM \
                 information_schema.columns WHERE table_schema = 'public'"
            }
        };

        let columns = sqlx::query(columns)
            .fetch_all(&mut connection)
            .await
            .unwrap();
        let mut values = Vec::new();
        for row in columns {
            let (table, column): (String, String) = (row.get(0), row.get(1));
            let query = format!(
                "SELECT {text} FROM \"{table}\" WHERE \"{column}\" IS NOT NULL",
                text = self.as_text(&column)
            );
            let texts: Vec<String> = sqlx::query_scalar(AssertSqlSafe(query))
                .fetch_all(&mut connection)
                .await
                .unwrap();
            values.extend(texts.into_iter().map(|text| Value {
                table: table.clone(),
                column: column.clone(),
                text,
            }));
        }

        values
    }
}
