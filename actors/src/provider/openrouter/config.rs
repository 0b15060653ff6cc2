//! What an operator chooses about the upstream, and what follows from it for every request.

use std::time::Duration;

use reqwest::{
    Url,
    header::{AUTHORIZATION, HeaderName},
};
use secrecy::SecretString;

use crate::provider::{
    EndpointError, Upstream,
    attempts::RetryPolicy,
    endpoint::{self, check_deadline},
};

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
    /// How it is to be reached.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// No room for any reply.
    #[error("the largest reply must be more than zero bytes")]
    NoRoom,
}

/// A checked configuration: the client and what every request needs.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    pub(super) http: endpoint::Endpoint,
    /// Where replies are asked for.
    pub(super) completions: Url,
    pub(super) deadlines: Deadlines,
    pub(super) reply_bytes_max: usize,
    pub(super) retry: RetryPolicy,
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
            ("first-token", first_token),
            ("silence", silence),
            ("whole-reply", whole),
        ] {
            check_deadline(what, deadline)?;
        }
        if config.reply_bytes_max == 0 {
            return Err(OpenRouterConfigError::NoRoom);
        }
        let title = config.title.as_ref();
        let http = endpoint::Endpoint::new(Upstream::OpenRouter, &config.base_url, connect)?
            .with_key(config.api_key.as_ref(), AUTHORIZATION, "Bearer ")?
            .with_header(
                HeaderName::from_static("http-referer"),
                "referer",
                config.http_referer.as_ref(),
            )?
            .with_header(
                HeaderName::from_static("x-openrouter-title"),
                "title",
                title,
            )?
            .with_header(HeaderName::from_static("x-title"), "title", title)?;
        Ok(Self {
            completions: http.url("/chat/completions")?,
            http,
            deadlines: config.deadlines,
            reply_bytes_max: config.reply_bytes_max,
            retry: config.retry,
        })
    }
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
        let request = endpoint
            .http
            .post_to(endpoint.completions.clone())
            .build()
            .unwrap();
        assert_eq!(
            request.url().as_str(),
            "https://openrouter.ai/api/v1/chat/completions"
        );
        assert_eq!(request.headers()["authorization"], "Bearer sk-test");
        assert_eq!(request.headers()["x-title"], "Idol");
        assert!(!format!("{endpoint:?} {request:?} {:?}", config()).contains("sk-test"));
        let mut message = "bad key sk-test!".to_owned();
        endpoint.http.redact(&mut message);
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
            endpoint.http.redact(&mut message);
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
