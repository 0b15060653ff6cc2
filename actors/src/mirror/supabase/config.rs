//! What an operator chooses about the project, and what follows from it for every request.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use reqwest::{
    Client, Method, RequestBuilder, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue},
};
use secrecy::SecretString;

use super::key::Key;

/// What every request says it comes from. Secret keys are refused for agents that look like a
/// browser's.
const USER_AGENT: &str = concat!("idol-router/", env!("CARGO_PKG_VERSION"));

/// An unused connection is kept this long: shorter than the patience of the proxies in between.
const POOL_IDLE: Duration = Duration::from_secs(60);

/// A dead network path is noticed this soon.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// No deadline is longer. Far ones would overflow the clock.
const DEADLINE_MAX: Duration = Duration::from_secs(24 * 3600);

/// The server takes no longer name for a bucket.
const BUCKET_CHARS_MAX: usize = 100;

/// Which project, and on what terms.
#[derive(Debug, Clone)]
pub struct SupabaseConfig {
    /// The project's URL without a path of ours: `https://<ref>.supabase.co`.
    pub url: String,
    /// The `service_role` JWT or a secret key, sent both as `apikey` and as bearer token. Any
    /// weaker key sees nothing where row-level security hides things, as if they were missing.
    pub service_role_key: SecretString,
    /// The bucket of the documents.
    pub bucket: String,
    /// How long to wait for what.
    pub deadlines: Deadlines,
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For a connection, name lookup and TLS included.
    pub connect: Duration,
    /// For a whole call: connection, request, answer.
    pub request: Duration,
}

impl Default for Deadlines {
    /// 5 s to connect, 30 s for a call.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            request: Duration::from_secs(30),
        }
    }
}

/// What is wrong with a [`SupabaseConfig`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SupabaseConfigError {
    /// The URL is none. It is not shown: it may hold a password.
    #[error("the Supabase URL {reason}")]
    Url {
        /// What is wrong with it.
        reason: String,
    },
    /// The key is empty, or holds characters that no HTTP header can. It is not shown.
    #[error("the Supabase key is empty or holds characters that an HTTP header cannot")]
    Key,
    /// No server has a bucket of this name.
    #[error(
        "bucket {bucket:?}: a name has 1 to {BUCKET_CHARS_MAX} ASCII characters without / or control"
    )]
    Bucket {
        /// As given.
        bucket: String,
    },
    /// A deadline of zero, or beyond a day.
    #[error("the {what} deadline must be more than zero and at most {} s", DEADLINE_MAX.as_secs())]
    Deadline {
        /// Which one.
        what: &'static str,
    },
    /// The HTTP client cannot be set up.
    #[error("the HTTP client cannot be set up: {reason}")]
    Client {
        /// The client's words.
        reason: String,
    },
}

/// A checked configuration: the clients and what every request needs.
pub(super) struct Endpoint {
    client: Client,
    lone_client: Client,
    base_url: String,
    headers: HeaderMap,
    pub(super) key: Key,
    pub(super) bucket: String,
    pub(super) request_deadline: Duration,
    /// Microseconds to the head of the last answer; 0: there was none yet.
    last_answer: AtomicU64,
}

/// Whether a request may share its connection with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    /// One from the pool.
    Shared,
    /// A new one, used for this request and closed.
    Lone,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("base_url", &self.base_url)
            .field("bucket", &self.bucket)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    pub(super) fn new(config: &SupabaseConfig) -> Result<Self, SupabaseConfigError> {
        let Deadlines { connect, request } = config.deadlines;
        for (what, deadline) in [("connect", connect), ("request", request)] {
            if deadline.is_zero() || deadline > DEADLINE_MAX {
                return Err(SupabaseConfigError::Deadline { what });
            }
        }
        let key = Key::new(config.service_role_key.clone());
        Ok(Self {
            client: client(connect, Connection::Shared)?,
            lone_client: client(connect, Connection::Lone)?,
            base_url: base_url(&config.url)?,
            headers: headers(&key)?,
            key,
            bucket: bucket(&config.bucket)?,
            request_deadline: request,
            last_answer: AtomicU64::new(0),
        })
    }

    /// Notes how long an answer took to come.
    pub(super) fn answered_after(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.last_answer.store(micros.max(1), Ordering::Relaxed);
    }

    pub(super) fn last_answer(&self) -> Option<Duration> {
        match self.last_answer.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }

    /// A request of the Storage service; `path` begins with `/` and is percent-encoded.
    pub(super) fn storage(
        &self,
        method: Method,
        path: &str,
        connection: Connection,
    ) -> RequestBuilder {
        self.request(method, &format!("/storage/v1{path}"), connection)
    }

    /// A request of PostgREST.
    pub(super) fn rest(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, &format!("/rest/v1{path}"), Connection::Shared)
    }

    fn request(&self, method: Method, path: &str, connection: Connection) -> RequestBuilder {
        let client = match connection {
            Connection::Shared => &self.client,
            Connection::Lone => &self.lone_client,
        };
        client
            .request(method, format!("{}{path}", self.base_url))
            .headers(self.headers.clone())
    }
}

fn client(connect: Duration, connection: Connection) -> Result<Client, SupabaseConfigError> {
    let builder = Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(connect)
        .tcp_nodelay(true)
        .tcp_keepalive(PING_EVERY)
        // A redirect would take the key and the documents to a place nobody chose; so would a
        // proxy found in the environment.
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    let builder = match connection {
        Connection::Shared => builder
            .pool_idle_timeout(POOL_IDLE)
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PING_TIMEOUT),
        // `Connection: close` is a word of HTTP/1.
        Connection::Lone => builder.http1_only().pool_max_idle_per_host(0),
    };
    builder.build().map_err(|error| {
        let reason = error.to_string();
        SupabaseConfigError::Client { reason }
    })
}

fn base_url(given: &str) -> Result<String, SupabaseConfigError> {
    let wrong = |reason: &str| SupabaseConfigError::Url {
        reason: reason.to_owned(),
    };
    let url = Url::parse(given.trim()).map_err(|error| wrong(&format!("is none: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("must begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // They would replace the bearer token.
        return Err(wrong("must hold no user name and no password"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("must end with the host or a path, without ? or #"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn bucket(given: &str) -> Result<String, SupabaseConfigError> {
    let allowed = |character: char| matches!(character, ' '..='~') && character != '/';
    let folds = matches!(given, "." | "..");
    if given.is_empty() || given.len() > BUCKET_CHARS_MAX || folds || !given.chars().all(allowed) {
        let bucket = given.to_owned();
        return Err(SupabaseConfigError::Bucket { bucket });
    }
    Ok(given.to_owned())
}

/// The same key twice: the gateway reads `apikey`, the services behind it read the bearer token,
/// and a gateway that swaps one for the other wants both alike.
fn headers(key: &Key) -> Result<HeaderMap, SupabaseConfigError> {
    if key.expose().is_empty() {
        return Err(SupabaseConfigError::Key);
    }
    let sensitive = |value: &str| {
        let mut value = HeaderValue::from_str(value).map_err(|_| SupabaseConfigError::Key)?;
        value.set_sensitive(true);
        Ok(value)
    };
    let bearer = format!("Bearer {}", key.expose());
    Ok(HeaderMap::from_iter([
        (HeaderName::from_static("apikey"), sensitive(key.expose())?),
        (AUTHORIZATION, sensitive(&bearer)?),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> SupabaseConfig {
        SupabaseConfig {
            url: "https://ref.supabase.co/".to_owned(),
            service_role_key: SecretString::from("sb_secret_test"),
            bucket: "conversations".to_owned(),
            deadlines: Deadlines::default(),
        }
    }

    fn error(change: impl FnOnce(&mut SupabaseConfig)) -> String {
        let mut config = config();
        change(&mut config);
        Endpoint::new(&config).unwrap_err().to_string()
    }

    #[test]
    fn a_good_configuration_gives_good_requests() {
        let endpoint = Endpoint::new(&config()).unwrap();
        let request = endpoint.rest(Method::GET, "/chats").build().unwrap();
        assert_eq!(
            request.url().as_str(),
            "https://ref.supabase.co/rest/v1/chats"
        );
        assert_eq!(request.headers()["apikey"], "sb_secret_test");
        assert_eq!(request.headers()["authorization"], "Bearer sb_secret_test");
        assert!(!format!("{endpoint:?} {request:?} {:?}", config()).contains("secret_test"));
    }

    #[test]
    fn a_bad_configuration_is_named() {
        for (found, named) in [
            (error(|c| c.url = "ref.supabase.co".into()), "URL is none"),
            (error(|c| c.url = "ftp://x".into()), "http://"),
            (error(|c| c.url = "http://x?a=b".into()), "without"),
            (error(|c| c.url = "http://a:hush@x".into()), "password"),
            (error(|c| c.service_role_key = "".into()), "key"),
            (error(|c| c.service_role_key = "hush\n".into()), "key"),
            (error(|c| c.bucket = "".into()), "bucket"),
            (error(|c| c.bucket = "a/b".into()), "bucket"),
            (error(|c| c.bucket = "..".into()), "bucket"),
            (error(|c| c.bucket = "é".into()), "bucket"),
            (error(|c| c.bucket = "b".repeat(101)), "bucket"),
            (error(|c| c.deadlines.connect = Duration::ZERO), "connect"),
            (error(|c| c.deadlines.request = Duration::MAX), "request"),
        ] {
            assert!(found.contains(named), "{found}");
            assert!(!found.contains("hush"));
        }
    }
}
