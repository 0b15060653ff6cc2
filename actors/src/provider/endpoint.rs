//! How every upstream is reached: the HTTP client, the base URL, the key, and what a connection
//! that breaks means.

use std::{
    error::Error as _,
    fmt,
    time::{Duration, SystemTime},
};

use reqwest::{
    Client, IntoUrl, RequestBuilder, Response, Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout_at};

use super::{Upstream, UpstreamError, failure, report::CUT};

/// What every request says it comes from.
const USER_AGENT: &str = concat!("idol-router/", env!("CARGO_PKG_VERSION"));

/// An unused connection is kept this long: longer than the pauses of a talk, shorter than the
/// patience of the proxies in between.
const POOL_IDLE: Duration = Duration::from_secs(60);

/// A dead network path is noticed this soon, instead of when a reply's silence runs out: over
/// HTTP/2 one connection carries many replies.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Over HTTP/2 a reply whose listener is slow may fill its own window, 64 KiB, but some hundred
/// such replies must not use up the window that all on the connection share.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * STREAM_WINDOW_BYTES;

/// So many first characters of a key are no secret: they are the same in most keys.
const KEY_PART_MIN: usize = 8;

/// No deadline is longer. Far ones would overflow the clock.
const DEADLINE_MAX: Duration = Duration::from_secs(24 * 3600);

/// As much of an error's body is read; the sentence in it comes early.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// As long is waited for an error's body: its status alone is enough.
const ERROR_BODY_WAIT: Duration = Duration::from_secs(5);

/// What is wrong with how an upstream is to be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The base URL is none.
    #[error("base URL {url:?}: {reason}")]
    BaseUrl {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A value holds characters that no HTTP header can. The value itself is not shown: it may be
    /// the key.
    #[error("the {what} holds characters that an HTTP header cannot")]
    Header {
        /// Which value.
        what: &'static str,
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

/// An upstream that can be asked: its client, its address, and what every request carries.
#[derive(Clone)]
pub(super) struct Endpoint {
    upstream: Upstream,
    client: Client,
    base_url: String,
    headers: HeaderMap,
    api_key: Option<SecretString>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("upstream", &self.upstream)
            .field("base_url", &self.base_url)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Checks the address and sets up a client; does not connect.
    pub(super) fn new(
        upstream: Upstream,
        given: &str,
        connect: Duration,
    ) -> Result<Self, EndpointError> {
        check_deadline("connect", connect)?;
        Ok(Self {
            upstream,
            client: client(connect)?,
            base_url: base_url(given)?,
            headers: HeaderMap::new(),
            api_key: None,
        })
    }

    /// Sends the key with every request, in this header, behind these words.
    pub(super) fn with_key(
        mut self,
        key: Option<&SecretString>,
        name: HeaderName,
        before: &str,
    ) -> Result<Self, EndpointError> {
        if let Some(key) = key {
            let value = format!("{before}{}", key.expose_secret());
            self.insert(name, "API key", &value)?;
            self.api_key = Some(key.clone());
        }
        Ok(self)
    }

    /// Sends a header with every request.
    pub(super) fn with_header(
        mut self,
        name: HeaderName,
        what: &'static str,
        value: Option<&String>,
    ) -> Result<Self, EndpointError> {
        if let Some(value) = value {
            self.insert(name, what, value)?;
        }
        Ok(self)
    }

    fn insert(
        &mut self,
        name: HeaderName,
        what: &'static str,
        value: &str,
    ) -> Result<(), EndpointError> {
        let wrong = |_| EndpointError::Header { what };
        let mut value = HeaderValue::from_str(value).map_err(wrong)?;
        value.set_sensitive(what == "API key");
        self.headers.insert(name, value);
        Ok(())
    }

    /// The whole address of a path: what is asked often need not be parsed each time.
    pub(super) fn url(&self, path: &str) -> Result<Url, EndpointError> {
        let url = format!("{}{path}", self.base_url);
        Url::parse(&url).map_err(|error| EndpointError::BaseUrl {
            reason: error.to_string(),
            url,
        })
    }

    pub(super) fn post(&self, path: &str) -> RequestBuilder {
        self.post_to(format!("{}{path}", self.base_url))
    }

    /// The same, to a whole address, as [`Self::url`] gives them.
    pub(super) fn post_to(&self, url: impl IntoUrl) -> RequestBuilder {
        self.client.post(url).headers(self.headers.clone())
    }

    pub(super) fn get(&self, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.base_url);
        self.client.get(url).headers(self.headers.clone())
    }

    /// Takes our key out of an upstream's words; some servers repeat it.
    pub(super) fn redact(&self, message: &mut String) {
        let key = self.api_key.as_ref().map(ExposeSecret::expose_secret);
        let Some(key) = key.filter(|key| !key.is_empty()) else {
            return;
        };
        if message.contains(key) {
            *message = message.replace(key, "(key)");
        }
        // Words that were cut to their longest may end within the key.
        if let Some(words) = message.strip_suffix(CUT)
            && let Some(part) = (KEY_PART_MIN..key.len())
                .rev()
                .filter_map(|end| key.get(..end))
                .find(|part| words.ends_with(part))
        {
            let end = words.len() - part.len();
            message.truncate(end);
            message.push_str("(key)");
            message.push(CUT);
        }
    }

    /// What a request that got no answer failed with.
    pub(super) fn transport(&self, error: &reqwest::Error) -> UpstreamError {
        transport(self.upstream, error)
    }

    /// Reads the body of an answer that is no success, and says what it means.
    pub(super) async fn refusal(&self, response: Response, until: Instant) -> Refusal {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let wait = until.min(Instant::now() + ERROR_BODY_WAIT);
        let mut body = Vec::new();
        // However the reading ends: what has come is looked at, and the status says enough.
        let read = read_body(self.upstream, response, ERROR_BYTES_MAX, &mut body);
        drop(timeout_at(wait, read).await);
        let now = SystemTime::now();
        let mut error = failure::of_response(self.upstream, status, &headers, &body, now);
        self.redact(&mut error.message);
        Refusal {
            error,
            status,
            body,
        }
    }
}

/// An answer that is no success.
pub(super) struct Refusal {
    pub(super) error: UpstreamError,
    pub(super) status: u16,
    /// What was read of it.
    pub(super) body: Vec<u8>,
}

/// A request that got no answer, or whose answer broke off.
pub(super) fn transport(upstream: Upstream, error: &reqwest::Error) -> UpstreamError {
    match (error.is_connect(), error.is_timeout()) {
        (true, true) => failure::timed_out(upstream, "gave no connection in time"),
        (true, false) => {
            let what = format!("gave no connection: {}", root_cause(error));
            failure::failed(upstream, what)
        }
        (false, _) => {
            let what = format!("broke the connection: {}", root_cause(error));
            failure::failed(upstream, what)
        }
    }
}

/// Reads a body up to `limit` bytes; what was read stays in `body` whatever happens.
pub(super) async fn read_body(
    upstream: Upstream,
    mut response: Response,
    limit: usize,
    body: &mut Vec<u8>,
) -> Result<(), UpstreamError> {
    loop {
        match response.chunk().await {
            Ok(Some(bytes)) if body.len() + bytes.len() <= limit => body.extend_from_slice(&bytes),
            Ok(Some(bytes)) => {
                body.extend_from_slice(&bytes[..limit - body.len()]);
                let message = format!("sent an answer of more than {limit} bytes");
                return Err(failure::failed(upstream, message));
            }
            Ok(None) => return Ok(()),
            Err(error) => return Err(transport(upstream, &error)),
        }
    }
}

/// The innermost reason: the outer ones repeat the URL and the libraries' names.
pub(super) fn root_cause(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    while let Some(inner) = cause.and_then(std::error::Error::source) {
        cause = Some(inner);
    }
    cause.map_or_else(|| "unknown".to_owned(), ToString::to_string)
}

/// Refuses a deadline of zero, and one that would overflow the clock.
pub(super) fn check_deadline(what: &'static str, deadline: Duration) -> Result<(), EndpointError> {
    match deadline.is_zero() || deadline > DEADLINE_MAX {
        true => Err(EndpointError::Deadline { what }),
        false => Ok(()),
    }
}

fn client(connect: Duration) -> Result<Client, EndpointError> {
    Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(connect)
        .tcp_nodelay(true)
        .tcp_keepalive(PING_EVERY)
        .pool_idle_timeout(POOL_IDLE)
        .http2_keep_alive_interval(PING_EVERY)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        // A redirect would take the key and the prompt to a place nobody chose; so would a proxy
        // found in the environment.
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(|error| EndpointError::Client {
            reason: error.to_string(),
        })
}

fn base_url(given: &str) -> Result<String, EndpointError> {
    let wrong = |reason: &str| EndpointError::BaseUrl {
        url: given.to_owned(),
        reason: reason.to_owned(),
    };
    let url = Url::parse(given.trim()).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("must begin with http:// or https://"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("must end with the path, without `?` or `#`"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}
