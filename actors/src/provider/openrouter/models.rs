//! The upstream's list of models, for the length of their contexts.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    config::{Endpoint, OpenRouterConfig, OpenRouterConfigError},
    failure,
};
use crate::provider::{Upstream, UpstreamError, endpoint::read_body};

/// OpenRouter's list is below 1 MiB for some 400 models.
const LIST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The list is a help, not a need: nobody waits longer for it.
const LIST_WAIT: Duration = Duration::from_secs(10);

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] OpenRouterConfigError),
    /// The upstream did not give it.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// What it gave is no list of models.
    #[error("the list of models cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

#[derive(Deserialize)]
struct List {
    data: Vec<Value>,
}

/// Reads the answer of `GET /models`: tokens of context by model id, where the upstream tells.
///
/// # Errors
///
/// What was read is no list of models.
pub fn context_lengths(json: &[u8]) -> Result<HashMap<String, u32>, serde_json::Error> {
    let list: List = serde_json::from_slice(json)?;
    // One by one: an odd entry says nothing, and takes nothing from the others.
    let lengths = list.data.iter().filter_map(|model| {
        let length = length(&model["context_length"])
            .or_else(|| length(&model["top_provider"]["context_length"]))
            // vLLM's name for it.
            .or_else(|| length(&model["max_model_len"]))?;
        Some((model["id"].as_str()?.to_owned(), length))
    });
    Ok(lengths.collect())
}

/// Some lists have 0 for what they do not know, and some have numbers with a point.
fn length(value: &Value) -> Option<u32> {
    let whole = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let whole = whole.or_else(|| {
        let number = value.as_f64().filter(|number| number.fract() == 0.0)?;
        format!("{number:.0}").parse().ok()
    })?;
    (whole > 0).then(|| u32::try_from(whole).unwrap_or(u32::MAX))
}

/// Asks the upstream for its list, for at most 10 s and 16 MiB.
///
/// Sets up a client of its own: the list is asked for once in hours.
///
/// # Errors
///
/// See [`ModelsError`]; the caller goes on with its default.
pub async fn fetch_context_lengths(
    config: &OpenRouterConfig,
) -> Result<HashMap<String, u32>, ModelsError> {
    let endpoint = Endpoint::new(config)?;
    let fetch = async {
        let response = endpoint.http.get("/models").send().await;
        let response = response.map_err(|error| {
            failure::failed(format!("cannot be asked: {}", error.without_url()))
        })?;
        let status = response.status();
        let headers = response.headers().clone();
        let mut body = Vec::new();
        let read = read_body(Upstream::OpenRouter, response, LIST_BYTES_MAX, &mut body).await;
        if !status.is_success() {
            let now = SystemTime::now();
            return Err(failure::of_response(status.as_u16(), &headers, &body, now));
        }
        read.map(|()| body)
    };
    let body = timeout(LIST_WAIT, fetch).await;
    let body = body.map_err(|_| failure::timed_out("did not send its list of models in time"))?;
    let body = body.map_err(|mut error| {
        endpoint.http.redact(&mut error.message);
        error
    })?;
    Ok(context_lengths(&body)?)
}

/// A list as it is kept over restarts.
#[derive(Serialize, Deserialize)]
struct Kept<'a> {
    /// Whose list it is.
    base_url: Cow<'a, str>,
    context_lengths: Cow<'a, HashMap<String, u32>>,
}

/// The list of this upstream that an earlier process kept; empty if there is none.
///
/// Blocks for a moment: to be called before anybody waits.
#[must_use]
pub fn kept(file: &Path, base_url: &str) -> HashMap<String, u32> {
    let Ok(json) = fs::read(file) else {
        return HashMap::new();
    };
    match serde_json::from_slice::<Kept<'_>>(&json) {
        Ok(kept) if kept.base_url == base_url => kept.context_lengths.into_owned(),
        Ok(_of_another) => HashMap::new(),
        Err(error) => {
            tracing::warn!(%error, "the model list that was kept cannot be read; it is asked for again");
            HashMap::new()
        }
    }
}

/// Keeps the list of this upstream. It is a help, not a need: if that fails, it is said, no more.
pub async fn keep(file: &Path, base_url: &str, lengths: &HashMap<String, u32>) {
    let kept = Kept {
        base_url: base_url.into(),
        context_lengths: Cow::Borrowed(lengths),
    };
    let Ok(json) = serde_json::to_vec(&kept) else {
        return;
    };
    let file = file.to_owned();
    let write = move || {
        // Renamed into place: a reader finds one list or the other.
        let temporary = file.with_extension("json.tmp");
        fs::write(&temporary, json).and_then(|()| fs::rename(&temporary, &file))
    };
    match tokio::task::spawn_blocking(write).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the model list is not kept over a restart"),
        Err(error) => tracing::warn!(%error, "keeping the model list failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_found_where_they_are_told() {
        let list = include_bytes!("../../../tests/fixtures/openrouter_models.json");
        let lengths = context_lengths(list).unwrap();
        assert_eq!(
            lengths,
            HashMap::from([("example/model-1".to_owned(), 131_072)])
        );
        let other = br#"{"object":"list","data":[
            {"id":"vllm","max_model_len":4096},
            {"id":"top","context_length":null,"top_provider":{"context_length":8192}},
            {"id":"none"}]}"#;
        let lengths = context_lengths(other).unwrap();
        assert_eq!(
            (lengths.len(), lengths["vllm"], lengths["top"]),
            (2, 4096, 8192)
        );
        assert!(context_lengths(b"<html>").is_err());
    }

    #[test]
    fn an_odd_entry_takes_nothing_from_the_others() {
        let list = br#"{"data":[
            7, null, {}, {"context_length":1}, {"id":9,"context_length":2},
            {"id":"zero","context_length":0},
            {"id":"zeros","context_length":0,"top_provider":{"context_length":4096}},
            {"id":"minus","context_length":-1}, {"id":"words","context_length":"many"},
            {"id":"point","context_length":8192.0}, {"id":"text","context_length":"1024"},
            {"id":"endless","context_length":1e15}, {"id":"odd","top_provider":[]},
            {"id":"good","context_length":2048}]}"#;
        let lengths = context_lengths(list).unwrap();
        let expected = [
            ("zeros", 4_096),
            ("point", 8_192),
            ("text", 1_024),
            ("endless", u32::MAX),
            ("good", 2_048),
        ];
        let expected = expected.map(|(id, length)| (id.to_owned(), length));
        assert_eq!(lengths, HashMap::from(expected));
    }

    #[tokio::test]
    async fn a_list_is_kept_for_its_upstream_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("models.json");
        assert_eq!(kept(&file, "http://one/v1"), HashMap::new());
        let lengths = HashMap::from([("a/b".to_owned(), 4_096)]);
        keep(&file, "http://one/v1", &lengths).await;
        assert_eq!(kept(&file, "http://one/v1"), lengths);
        assert_eq!(kept(&file, "http://two/v1"), HashMap::new());
        fs::write(&file, "{").unwrap();
        assert_eq!(kept(&file, "http://one/v1"), HashMap::new());
    }
}
