//! The bucket and its objects.

use std::sync::Arc;

use bytes::Bytes;
use reqwest::{
    Method,
    header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue},
};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    SupabaseClient,
    call::Effect,
    config::Connection,
    error::{Missing, SupabaseError, SupabaseErrorKind},
    metadata::Metadata,
    names::{encode, encode_key},
    pieces,
};
use crate::time::Timestamp;

/// Longest answer that is no document.
pub(super) const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Bodies up to this length share a connection with other requests.
///
/// When the server refuses an upload it may answer at once and never read the rest of the body,
/// while the connection stays open. Up to 192 KiB that was seen to do no harm, since the rest
/// fits into buffers. The next request after a longer body would wait in vain for its answer, so
/// a longer body gets a connection of its own, which is closed with the answer. Small documents
/// are most of them, and are spared a handshake each.
const SHARED_BODY_BYTES_MAX: usize = 128 * 1024;

/// The bucket as the server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Whether it was there.
    pub found: Found,
    /// Longest object in bytes; the server's own limit holds besides.
    pub file_size_limit: Option<u64>,
    /// Whether everybody may read it. It should not be.
    pub public: bool,
    /// The only content types it takes, if limited. Documents are `application/json`.
    pub allowed_mime_types: Option<Vec<String>>,
}

/// Whether a bucket was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It was.
    Existing,
    /// It was created, by us or by somebody else meanwhile.
    New,
}

/// An object as the server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// As in the header of that name, quotes included. Not always an MD5.
    pub etag: String,
    /// Bytes.
    pub size: u64,
    /// Another one after each upload.
    pub version: String,
    /// When it was uploaded, if the server tells it intelligibly.
    pub last_modified: Option<Timestamp>,
    /// What its writer said of it; `None` if the writer was not one of us.
    pub metadata: Option<Metadata>,
}

/// How a copy ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copying {
    /// It was made.
    Copied,
    /// There is an object of the new name; it was left alone.
    AlreadyThere,
    /// There is no object of the old name.
    Missing,
}

/// How a deletion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It was there, and is gone.
    Deleted,
    /// It was not there.
    WasMissing,
}

#[derive(Deserialize)]
struct BucketAnswer {
    id: String,
    #[serde(default)]
    public: bool,
    file_size_limit: Option<u64>,
    allowed_mime_types: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct InfoAnswer {
    etag: String,
    size: u64,
    version: String,
    last_modified: Option<String>,
    #[serde(default)]
    metadata: Value,
}

/// The answer to an upload or a copy. A success that does not name the object is none.
#[derive(Deserialize)]
struct Stored {
    #[serde(rename = "Key")]
    key: String,
}

impl SupabaseClient {
    /// Makes sure that the bucket is there: private, and without a limit of its own, if it has to
    /// be created. An existing bucket is left as it is.
    ///
    /// # Errors
    ///
    /// See [`SupabaseErrorKind`]; [`Missing::Bucket`] if it can be neither seen nor created.
    pub async fn ensure_bucket(&self) -> Result<Bucket, SupabaseError> {
        match self.bucket(Found::Existing).await {
            Err(error) if error.kind == SupabaseErrorKind::NotFound(Missing::Bucket) => {}
            known => return known,
        }
        let name = &self.endpoint.bucket;
        let wanted = json!({"id": name, "name": name, "public": false});
        let request = self
            .endpoint
            .storage(Method::POST, "/bucket", Connection::Shared)
            .json(&wanted);
        match self.endpoint.ask(request, Effect::Writes).await {
            Ok(_) => {}
            // Somebody else was faster.
            Err(error) if error.kind == SupabaseErrorKind::Duplicate => {}
            Err(error) => return Err(error),
        }
        self.bucket(Found::New).await
    }

    async fn bucket(&self, found: Found) -> Result<Bucket, SupabaseError> {
        let path = format!("/bucket/{}", encode(&self.endpoint.bucket));
        let request = self
            .endpoint
            .storage(Method::GET, &path, Connection::Shared);
        let answer = self.endpoint.ask(request, Effect::Reads).await?;
        let answer: BucketAnswer = answer.json(ANSWER_BYTES_MAX, "bucket").await?;
        if answer.id != self.endpoint.bucket {
            return Err(SupabaseError::malformed("described another bucket"));
        }
        Ok(Bucket {
            found,
            file_size_limit: answer.file_size_limit,
            public: answer.public,
            allowed_mime_types: answer.allowed_mime_types,
        })
    }

    /// Writes a document, over an existing one if there is one.
    ///
    /// The pieces are sent one after the other, with their length ahead: the server does not
    /// apply its size limits to bodies that do not say how long they are.
    ///
    /// # Errors
    ///
    /// See [`SupabaseErrorKind`]. Unless [`SupabaseError::outcome_unknown`], what was there
    /// before still is.
    pub async fn upload(
        &self,
        key: &str,
        document: Vec<Arc<str>>,
        metadata: &Metadata,
    ) -> Result<(), SupabaseError> {
        let path = self.object("/object", key)?;
        let length = pieces::length(&document);
        let (body, handed_over) = pieces::body(document);
        let connection = if length > SHARED_BODY_BYTES_MAX {
            Connection::Lone
        } else {
            Connection::Shared
        };
        let mut request = self
            .endpoint
            .storage(Method::POST, &path, connection)
            .header("x-upsert", HeaderValue::from_static("true"))
            .header(CACHE_CONTROL, HeaderValue::from_static("no-cache"))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("x-metadata", metadata.to_header())
            // A streamed body would be sent chunked without it.
            .header(CONTENT_LENGTH, length)
            .body(body);
        if connection == Connection::Lone {
            // Closed with the answer, even if half of the body is still on its way.
            request = request.header(CONNECTION, HeaderValue::from_static("close"));
        }
        let effect = Effect::WritesBody(handed_over);
        self.stored(request, effect).await
    }

    /// What the server knows of an object; `None` only if it says that there is none.
    ///
    /// # Errors
    ///
    /// See [`SupabaseErrorKind`]; also if the bucket is missing.
    pub async fn info(&self, key: &str) -> Result<Option<ObjectInfo>, SupabaseError> {
        let path = self.object("/object/info/authenticated", key)?;
        let request = self
            .endpoint
            .storage(Method::GET, &path, Connection::Shared);
        let Some(answer) = unless_missing(self.endpoint.ask(request, Effect::Reads).await)? else {
            return Ok(None);
        };
        let answer: InfoAnswer = answer
            .json(ANSWER_BYTES_MAX, "object's description")
            .await?;
        Ok(Some(ObjectInfo {
            etag: answer.etag,
            size: answer.size,
            version: answer.version,
            last_modified: answer.last_modified.as_deref().and_then(Timestamp::parse),
            metadata: Metadata::read(answer.metadata),
        }))
    }

    /// Reads a document; `None` only if the server says that there is none.
    ///
    /// # Errors
    ///
    /// See [`SupabaseErrorKind`]; [`TooLarge`](SupabaseErrorKind::TooLarge) if it has more than
    /// `bytes_max` bytes, and never a part of it if the connection breaks.
    pub async fn download(
        &self,
        key: &str,
        bytes_max: usize,
    ) -> Result<Option<Bytes>, SupabaseError> {
        // Without `authenticated`, a bad key is answered as if the bucket were missing.
        let path = self.object("/object/authenticated", key)?;
        // Caches on the way may hold an older document for a minute, but not under a new URL.
        let path = format!("{path}?cacheNonce={}", Uuid::new_v4().simple());
        let request = self
            .endpoint
            .storage(Method::GET, &path, Connection::Shared);
        let Some(answer) = unless_missing(self.endpoint.ask(request, Effect::Reads).await)? else {
            return Ok(None);
        };
        let status = answer.status();
        if status != 200 || !answer.tells_its_end() {
            let what = format!("sent no whole document (HTTP {status})");
            return Err(SupabaseError::malformed(what));
        }
        Ok(Some(answer.bytes(bytes_max).await?.into()))
    }

    /// Copies an object, with its metadata, to a name that is free.
    ///
    /// Two copies to one name at the same moment may both succeed.
    ///
    /// # Errors
    ///
    /// See [`SupabaseErrorKind`].
    pub async fn copy(&self, from: &str, to: &str) -> Result<Copying, SupabaseError> {
        encode_key(from)?;
        encode_key(to)?;
        let wanted = json!({
            "bucketId": self.endpoint.bucket,
            "sourceKey": from,
            "destinationKey": to,
        });
        let request = self
            .endpoint
            .storage(Method::POST, "/object/copy", Connection::Shared)
            .json(&wanted);
        match self.stored(request, Effect::Writes).await {
            Ok(()) => Ok(Copying::Copied),
            Err(error) => match error.kind {
                SupabaseErrorKind::Duplicate => Ok(Copying::AlreadyThere),
                SupabaseErrorKind::NotFound(Missing::Object) => Ok(Copying::Missing),
                _ => Err(error),
            },
        }
    }

    /// Deletes an object. The server does not tell a missing bucket from a missing object here.
    ///
    /// # Errors
    ///
    /// See [`SupabaseErrorKind`].
    pub async fn delete(&self, key: &str) -> Result<Deletion, SupabaseError> {
        let path = self.object("/object", key)?;
        // With a content type, but no content, it would be refused.
        let request = self
            .endpoint
            .storage(Method::DELETE, &path, Connection::Shared);
        let answer = unless_missing(self.endpoint.ask(request, Effect::Writes).await)?;
        let Some(answer) = answer else {
            return Ok(Deletion::WasMissing);
        };
        let _: Deleted = answer.json(ANSWER_BYTES_MAX, "word of a deletion").await?;
        Ok(Deletion::Deleted)
    }

    async fn stored(
        &self,
        request: reqwest::RequestBuilder,
        effect: Effect,
    ) -> Result<(), SupabaseError> {
        let answer = self.endpoint.ask(request, effect).await?;
        let stored: Stored = answer.json(ANSWER_BYTES_MAX, "name of an object").await?;
        if stored.key.is_empty() {
            return Err(SupabaseError::malformed("named no object"));
        }
        Ok(())
    }

    fn object(&self, route: &str, key: &str) -> Result<String, SupabaseError> {
        let bucket = encode(&self.endpoint.bucket);
        Ok(format!("{route}/{bucket}/{}", encode_key(key)?))
    }
}

/// `{"message": "Successfully deleted"}`.
#[derive(Deserialize)]
struct Deleted {
    #[serde(rename = "message")]
    _message: String,
}

/// `None` for the one error that says that there is no such object.
fn unless_missing<T>(outcome: Result<T, SupabaseError>) -> Result<Option<T>, SupabaseError> {
    match outcome {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.kind == SupabaseErrorKind::NotFound(Missing::Object) => Ok(None),
        Err(error) => Err(error),
    }
}
