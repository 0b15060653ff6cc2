//! Says what kind of failure an upstream's error answer is.
//!
//! Pure. Knows the error shapes of OpenAI, OpenRouter, ElevenLabs and the servers that speak like
//! them: an `error` object or string, `detail` (object, list or string), a flat `message`, a web
//! page, nothing at all.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::{Upstream, UpstreamError, UpstreamErrorKind, report::Report};

/// The longest wait taken from an upstream. A daily limit asks for more; nobody waits that long.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Classifies an HTTP answer whose status is not a success.
///
/// `body` is what was read of it, perhaps cut; `now` turns dates into waits.
#[must_use]
pub fn of_response(
    upstream: Upstream,
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    now: SystemTime,
) -> UpstreamError {
    let report = Report::read(body);
    let kind = kind(upstream, status, &report);
    let message = if (300..400).contains(&status) {
        let what = format!("sent a redirect (HTTP {status}); is the base URL right?");
        told(upstream, &what)
    } else {
        sentence(upstream, &kind, &format!("HTTP {status}"), &report)
    };
    UpstreamError {
        upstream,
        retry_after: wait(headers, &report, now, &kind),
        retryable: should_retry(headers).or(report.retryable),
        too_long: None,
        kind,
        message,
    }
}

/// Classifies an error that came with HTTP 200: inside the stream, or as the whole body.
///
/// `payload` is the event's JSON, or the value of its `error` member.
#[must_use]
pub fn of_payload(upstream: Upstream, payload: &[u8]) -> UpstreamError {
    let report = Report::read(payload);
    let status = report.status().unwrap_or(500);
    let kind = kind(upstream, status, &report);
    UpstreamError {
        upstream,
        retry_after: report.retry_after.map(bounded),
        retryable: report.retryable,
        too_long: None,
        message: sentence(upstream, &kind, "mid-reply", &report),
        kind,
    }
}

/// The reply broke off, or cannot be read; `what` the upstream did, without a subject.
pub(crate) fn failed(upstream: Upstream, what: impl AsRef<str>) -> UpstreamError {
    UpstreamError {
        upstream,
        kind: UpstreamErrorKind::Failed,
        message: told(upstream, what.as_ref()),
        retry_after: None,
        retryable: None,
        too_long: None,
    }
}

/// A deadline of ours passed; `what` the upstream did, without a subject.
pub(super) fn timed_out(upstream: Upstream, what: impl AsRef<str>) -> UpstreamError {
    UpstreamError {
        kind: UpstreamErrorKind::Timeout,
        ..failed(upstream, what)
    }
}

/// A whole sentence of what the upstream did. Users read it, and may not know its name.
fn told(upstream: Upstream, what: &str) -> String {
    format!("{} {what}", upstream.role())
}

fn kind(upstream: Upstream, status: u16, report: &Report) -> UpstreamErrorKind {
    use UpstreamErrorKind as Kind;
    // Whatever the status: Ollama sends 500 for it.
    if report.is_context_too_long() {
        return Kind::ContextTooLong;
    }
    if upstream == Upstream::ElevenLabs {
        let says = |words: [&str; 2]| words.iter().any(|word| report.has_word(word));
        // It sends 401, 402 or 429 for it.
        if says(["quota_exceeded", "insufficient_credits"]) {
            return Kind::Credits;
        }
        // As 402 and 403: the key is good and has credits, but the voice or the format that was
        // asked for is not its plan's.
        if says(["paid_plan_required", "only_for_creator+"]) {
            return Kind::Rejected;
        }
    }
    match status {
        401 => Kind::Auth,
        402 => Kind::Credits,
        408 | 504 | 524 => Kind::Timeout,
        // OpenAI's word for an empty account, sent as 429: no wait cures it.
        429 if report.has_word("insufficient_quota") => Kind::Credits,
        429 => Kind::RateLimited,
        // The upstream knows best: asked again, this may find an endpoint.
        400..500 if report.retryable == Some(true) => Kind::Failed,
        // Our key is good, but what we asked for is not allowed.
        403 if !report.is_about_the_request() => Kind::Auth,
        400..500 => Kind::Rejected,
        _ => Kind::Failed,
    }
}

/// One sentence for the user. Only what is our request's fault is quoted bare; our key's
/// failures are never quoted, since some servers repeat the key in them.
fn sentence(upstream: Upstream, kind: &UpstreamErrorKind, place: &str, report: &Report) -> String {
    use UpstreamErrorKind as Kind;
    let told = |what: &str| told(upstream, what);
    let with_quote = |what: &str, quoted: Option<&str>| match quoted {
        Some(quoted) => told(&format!("{what} ({place}): {quoted}")),
        None => told(&format!("{what} ({place})")),
    };
    let quoted = report.message.as_deref();
    match kind {
        Kind::Auth => told(&format!("refused the API key ({place})")),
        Kind::Credits => told(&format!(
            "has no credit or quota left for this API key ({place})"
        )),
        Kind::Rejected | Kind::ContextTooLong | Kind::AudioTooShort | Kind::TooLarge => quoted
            .map_or_else(
                || told(&format!("refused the request ({place})")),
                ToOwned::to_owned,
            ),
        Kind::RateLimited => with_quote("asks for fewer requests", quoted),
        Kind::Timeout => with_quote("did not answer in time", quoted),
        Kind::Failed | Kind::Unavailable | Kind::NotConfigured { .. } => {
            with_quote("failed", quoted)
        }
    }
}

/// How long to wait: the headers of the answer first, then the error's own word, then the moment
/// at which OpenRouter's own limit starts anew.
fn wait(
    headers: &HeaderMap,
    report: &Report,
    now: SystemTime,
    kind: &UpstreamErrorKind,
) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let milliseconds = text("retry-after-ms")
        .and_then(|text| text.parse::<f64>().ok())
        .map(|milliseconds| milliseconds / 1000.0);
    let seconds = || text(RETRY_AFTER.as_str())?.parse::<f64>().ok();
    let date = || {
        let date = httpdate::parse_http_date(text(RETRY_AFTER.as_str())?).ok()?;
        Some(date.duration_since(now).unwrap_or_default())
    };
    let reset = || {
        // Milliseconds since the epoch; other servers put other units here, far smaller numbers.
        let milliseconds = text("x-ratelimit-reset")?.parse::<u64>().ok()?;
        let at = UNIX_EPOCH + Duration::from_millis(milliseconds);
        let is_limit = *kind == UpstreamErrorKind::RateLimited && milliseconds > 1_000_000_000_000;
        is_limit.then(|| at.duration_since(now).unwrap_or_default())
    };
    milliseconds
        .or_else(seconds)
        .and_then(duration)
        .or_else(date)
        .or(report.retry_after)
        .or_else(reset)
        .map(bounded)
}

/// OpenAI's cue for its own SDKs.
fn should_retry(headers: &HeaderMap) -> Option<bool> {
    match headers.get("x-should-retry")?.as_bytes() {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

/// Seconds as text or JSON gave them; `None` if negative or no number.
pub(super) fn duration(seconds: f64) -> Option<Duration> {
    let most = RETRY_AFTER_MAX.as_secs_f64();
    (seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(most)))
}

fn bounded(wait: Duration) -> Duration {
    wait.min(RETRY_AFTER_MAX)
}

#[cfg(test)]
mod tests;
