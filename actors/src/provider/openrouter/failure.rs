//! Failures of this upstream: what all upstreams share, said of it.

use std::time::SystemTime;

use reqwest::header::HeaderMap;

use crate::provider::{Upstream, UpstreamError, failure};

const UPSTREAM: Upstream = Upstream::OpenRouter;

pub(super) fn of_response(
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    now: SystemTime,
) -> UpstreamError {
    failure::of_response(UPSTREAM, status, headers, body, now)
}

pub(super) fn of_payload(payload: &[u8]) -> UpstreamError {
    failure::of_payload(UPSTREAM, payload)
}

pub(super) fn failed(what: impl AsRef<str>) -> UpstreamError {
    failure::failed(UPSTREAM, what)
}

pub(super) fn timed_out(what: impl AsRef<str>) -> UpstreamError {
    failure::timed_out(UPSTREAM, what)
}
