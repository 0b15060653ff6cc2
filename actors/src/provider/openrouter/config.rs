//! What an operator chooses about the upstream, and what follows from it for every request.

use std::{fmt, time::Duration};

use reqwest::{
    Client, RequestBuilder, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue},
};
use secrecy::{ExposeSecret, SecretString};

use super::report::CUT;
use crate::provider::attempts::RetryPolicy;

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

/// Where replies come from, and on what terms.
#[derive(Debug, Clone)]
pub struct OpenRouterConfig {
    /// Up to and including the version prefix: `https://openrouter.ai/api/v1`.
    pub base_url: String,
    /// Sent as a bearer token; a local server needs none.
    pub api_key: Option<SecretString>,
    /// `HTTP-Referer`: names the app to OpenRouter.
    pub http_referer: Option<String>,
    /// `X-OpenRouter-Title`, and `X-Title`, its older name.
    pub title: Option<String>,
    /// How long to wait for what.
    pub deadlines: Deadlines,
    /// Longest reply in bytes: text, reasoning, tool calls and other members together, as escaped
    /// JSON. A longer one is cut there and ends with the finish reason `length`.
    pub reply_bytes_max: usize,
    /// How often a reply is asked for.
    pub retry: RetryPolicy,
}

/// How long to wait for what; when one passes, the reply fails as a timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// From the request to the first piece of text, reasoning or tool call. Comments and empty
    /// chunks do not count: they show that a router is alive, not that a model answers.
    pub first_token: Duration,
    /// Between two events with data, once the reply flows. Comments do not count, as above.
    pub silence: Duration,
    /// For the whole reply.
    pub whole: Duration,
}

impl Default for Deadlines {
    /// 5 s to connect, 60 s to the first token (a cold model takes tens), 30 s of silence, 10 min.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_token: Duration::from_secs(60),
            silence: Duration::from_secs(30),
            whole: Duration::from_secs(600),
        }
    }
}

/// What is wrong with an [`OpenRouterConfig`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenRouterConfigError {
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
    /// No room for any reply.
    #[error("the largest reply must be more than zero bytes")]
    NoRoom,
    /// The HTTP client cannot be set up.
    #[error("the HTTP client cannot be set up: {reason}")]
    Client {
        /// The client's words.
        reason: String,
    },
}

/// A checked configuration: the client and what every request needs.
#[derive(Clone)]
pub(super) struct Endpoint {
    client: Client,
    base_url: String,
    headers: HeaderMap,
    api_key: Option<SecretString>,
    pub(super) deadlines: Deadlines,
    pub(super) reply_bytes_max: usize,
    pub(super) retry: RetryPolicy,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("base_url", &self.base_url)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    pub(super) fn new(config: &OpenRouterConfig) -> Result<Self, OpenRouterConfigError> {
        let Deadlines {
            connect,
            first_token,
            silence,
            whole,
        } = config.deadlines;
        for (what, deadline) in [
            ("connect", connect),
            ("first-token", first_token),
            ("silence", silence),
            ("whole-reply", whole),
        ] {
            if deadline.is_zero() || deadline > DEADLINE_MAX {
                return Err(OpenRouterConfigError::Deadline { what });
            }
        }
        if config.reply_bytes_max == 0 {
            return Err(OpenRouterConfigError::NoRoom);
        }
        Ok(Self {
            client: client(connect)?,
            base_url: base_url(&config.base_url)?,
            headers: headers(config)?,
            api_key: config.api_key.clone(),
            deadlines: config.deadlines,
            reply_bytes_max: config.reply_bytes_max,
            retry: config.retry,
        })
    }

    pub(super) fn post(&self, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.base_url);
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
}

fn client(connect: Duration) -> Result<Client, OpenRouterConfigError> {
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
        .map_err(|error| OpenRouterConfigError::Client {
            reason: error.to_string(),
        })
}

fn base_url(given: &str) -> Result<String, OpenRouterConfigError> {
    let wrong = |reason: &str| OpenRouterConfigError::BaseUrl {
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

fn headers(config: &OpenRouterConfig) -> Result<HeaderMap, OpenRouterConfigError> {
    let mut headers = HeaderMap::new();
    let mut insert = |name: HeaderName, what, value: &str| {
        let wrong = |_| OpenRouterConfigError::Header { what };
        let mut value = HeaderValue::from_str(value).map_err(wrong)?;
        value.set_sensitive(name == AUTHORIZATION);
        headers.insert(name, value);
        Ok(())
    };
    if let Some(key) = &config.api_key {
        let bearer = format!("Bearer {}", key.expose_secret());
        insert(AUTHORIZATION, "API key", &bearer)?;
    }
    if let Some(referer) = &config.http_referer {
        insert(HeaderName::from_static("http-referer"), "referer", referer)?;
    }
    if let Some(title) = &config.title {
        insert(
            HeaderName::from_static("x-openrouter-title"),
            "title",
            title,
        )?;
        insert(HeaderName::from_static("x-title"), "title", title)?;
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> OpenRouterConfig {
        OpenRouterConfig {
            base_url: "https://openrouter.ai/api/v1/".to_owned(),
            api_key: Some(SecretString::from("sk-test")),
            http_referer: Some("https://example.org".to_owned()),
            title: Some("Idol".to_owned()),
            deadlines: Deadlines::default(),
            reply_bytes_max: 1024,
            retry: RetryPolicy::default(),
        }
    }

    fn error(change: impl FnOnce(&mut OpenRouterConfig)) -> String {
        let mut config = config();
        change(&mut config);
        Endpoint::new(&config).unwrap_err().to_string()
    }

    #[test]
    fn a_good_configuration_gives_good_requests() {
        let endpoint = Endpoint::new(&config()).unwrap();
        let request = endpoint.post("/chat/completions").build().unwrap();
        assert_eq!(
            request.url().as_str(),
            "https://openrouter.ai/api/v1/chat/completions"
        );
        assert_eq!(request.headers()["authorization"], "Bearer sk-test");
        assert_eq!(request.headers()["x-title"], "Idol");
        assert!(!format!("{endpoint:?} {request:?} {:?}", config()).contains("sk-test"));
        let mut message = "bad key sk-test!".to_owned();
        endpoint.redact(&mut message);
        assert_eq!(message, "bad key (key)!");
        let long = OpenRouterConfig {
            api_key: Some(SecretString::from("hush-0123456789")),
            ..config()
        };
        let endpoint = Endpoint::new(&long).unwrap();
        for (words, shown) in [
            ("bad key hush-01234…", "bad key (key)…"),
            ("bad key hush-012…", "bad key (key)…"),
            ("bad key hush-01…", "bad key hush-01…"),
            ("not cut hush-01234", "not cut hush-01234"),
        ] {
            let mut message = words.to_owned();
            endpoint.redact(&mut message);
            assert_eq!(message, shown);
        }
    }

    #[test]
    fn a_bad_configuration_is_named() {
        for (found, named) in [
            (error(|c| c.base_url = "openrouter.ai".into()), "base URL"),
            (error(|c| c.base_url = "ftp://x/v1".into()), "http://"),
            (error(|c| c.base_url = "http://x/v1?a=b".into()), "without"),
            (error(|c| c.api_key = Some("a\nb".into())), "API key"),
            (error(|c| c.http_referer = Some("\0".into())), "referer"),
            (error(|c| c.title = Some("\n".into())), "title"),
            (error(|c| c.deadlines.silence = Duration::ZERO), "silence"),
            (error(|c| c.deadlines.whole = Duration::MAX), "whole-reply"),
            (error(|c| c.reply_bytes_max = 0), "largest reply"),
        ] {
            assert!(found.contains(named), "{found}");
            assert!(!found.contains("a\nb"));
        }
    }
}
