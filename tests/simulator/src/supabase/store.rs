//! The buckets and the objects in them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use md5::{Digest, Md5};
use serde_json::{Value, json};
use uuid::Uuid;

/// Every bucket, by its id.
pub(crate) type Buckets = BTreeMap<String, Bucket>;

/// A bucket, its limits and its objects.
#[derive(Debug)]
pub(crate) struct Bucket {
    pub(crate) id: String,
    pub(crate) public: bool,
    /// The most bytes of an object whose length is told.
    pub(crate) limit: Option<u64>,
    pub(crate) mime_types: Option<Vec<String>>,
    created: DateTime<Utc>,
    pub(crate) objects: BTreeMap<String, Object>,
}

/// An object: its present version, and the one before the last overwrite.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) id: Uuid,
    created: DateTime<Utc>,
    pub(crate) now: Version,
    pub(crate) before: Option<Version>,
}

/// What one upload wrote.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) id: Uuid,
    pub(crate) bytes: Bytes,
    pub(crate) content_type: String,
    pub(crate) cache_control: String,
    /// The JSON of `x-metadata`.
    pub(crate) metadata: Option<Value>,
    /// The MD5 in quotes.
    pub(crate) etag: String,
    modified: DateTime<Utc>,
}

impl Version {
    pub(crate) fn new(
        bytes: Bytes,
        content_type: &str,
        cache_control: &str,
        metadata: Option<Value>,
    ) -> Self {
        let mut etag = String::from("\"");
        for byte in Md5::digest(&bytes) {
            // Writing to a string does not fail.
            write!(etag, "{byte:02x}").unwrap_or_default();
        }
        etag.push('"');
        Self {
            id: Uuid::new_v4(),
            bytes,
            content_type: content_type.to_owned(),
            cache_control: cache_control.to_owned(),
            metadata,
            etag,
            modified: Utc::now(),
        }
    }

    /// Returns the moment of the upload as HTTP writes it.
    pub(crate) fn last_modified(&self) -> String {
        self.modified
            .format("%a, %d %b %Y %H:%M:%S GMT")
            .to_string()
    }

    /// Returns the metadata that storage itself keeps, as the rows of lists show it.
    pub(crate) fn system_metadata(&self) -> Value {
        json!({
            "eTag": self.etag,
            "size": self.bytes.len(),
            "mimetype": self.content_type,
            "cacheControl": self.cache_control,
            "lastModified": timestamp(self.modified),
            "contentLength": self.bytes.len(),
            "httpStatusCode": 200,
        })
    }

    pub(crate) fn user_metadata(&self) -> Value {
        self.metadata.clone().unwrap_or_else(|| json!({}))
    }
}

impl Object {
    /// Returns the columns that every row of an object shows.
    pub(crate) fn row(&self, name: &str) -> serde_json::Map<String, Value> {
        let mut row = serde_json::Map::new();
        let updated = timestamp(self.now.modified);
        row.insert("name".into(), json!(name));
        row.insert("id".into(), json!(self.id));
        row.insert("updated_at".into(), json!(updated));
        row.insert("created_at".into(), json!(timestamp(self.created)));
        row.insert("last_accessed_at".into(), json!(timestamp(self.created)));
        row.insert("metadata".into(), self.now.system_metadata());
        row
    }

    /// Returns the row that copies and bulk deletes answer with.
    pub(crate) fn full_row(&self, bucket: &str, name: &str) -> serde_json::Map<String, Value> {
        let mut row = self.row(name);
        row.insert("bucket_id".into(), json!(bucket));
        row.insert("owner".into(), json!(""));
        row.insert("owner_id".into(), json!(""));
        row.insert("version".into(), json!(self.now.id));
        row.insert("user_metadata".into(), self.now.user_metadata());
        row
    }

    /// Returns what `/object/info` tells of a version of this object.
    pub(crate) fn info(&self, version: &Version, bucket: &str, name: &str) -> Value {
        json!({
            "id": self.id,
            "name": name,
            "version": version.id,
            "bucket_id": bucket,
            "size": version.bytes.len(),
            "content_type": version.content_type,
            "cache_control": version.cache_control,
            "etag": version.etag,
            "metadata": version.user_metadata(),
            "last_modified": timestamp(version.modified),
            "created_at": timestamp(self.created),
        })
    }

    pub(crate) fn updated(&self) -> DateTime<Utc> {
        self.now.modified
    }

    pub(crate) fn created(&self) -> DateTime<Utc> {
        self.created
    }
}

impl Bucket {
    pub(crate) fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            public: false,
            limit: None,
            mime_types: None,
            created: Utc::now(),
            objects: BTreeMap::new(),
        }
    }

    /// Writes an object, and returns its id, which an overwrite does not change.
    pub(crate) fn put(&mut self, key: &str, version: Version) -> Uuid {
        if let Some(object) = self.objects.get_mut(key) {
            object.before = Some(std::mem::replace(&mut object.now, version));
            return object.id;
        }
        let object = Object {
            id: Uuid::new_v4(),
            created: version.modified,
            now: version,
            before: None,
        };
        let id = object.id;
        self.objects.insert(key.to_owned(), object);
        id
    }

    /// Returns what `GET /bucket/{id}` tells.
    ///
    /// `updated_at` does not move with an update; a real server's did not, either.
    pub(crate) fn describe(&self) -> Value {
        json!({
            "id": self.id,
            "name": self.id,
            "owner": "",
            "public": self.public,
            "file_size_limit": self.limit,
            "allowed_mime_types": self.mime_types,
            "created_at": timestamp(self.created),
            "updated_at": timestamp(self.created),
        })
    }
}

/// Writes a moment as JSON shows it.
fn timestamp(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Millis, true)
}
