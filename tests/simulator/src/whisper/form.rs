//! The form that an upload is, taken apart.

use std::convert::Infallible;

use bytes::Bytes;
use multer::Multipart;
use sha2::{Digest, Sha256};

use crate::http::Request;

/// A transcription request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The path that was asked.
    pub path: String,
    /// The file's bytes.
    pub file: Bytes,
    /// The file's name, where the form told one.
    pub file_name: Option<String>,
    /// The file's media type, where the form told one.
    pub content_type: Option<String>,
    /// The other fields, in the order of the form.
    pub fields: Vec<(String, String)>,
    /// The length of the whole request body in bytes.
    pub body_len: usize,
    /// The names of all fields in the order of the form, `file` included.
    pub order: Vec<String>,
}

/// A form that could not be read, or lacks what every form must have.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FormError {
    #[error("the request is no multipart form: {0}")]
    Malformed(#[from] multer::Error),
    #[error("the form has no file")]
    NoFile,
}

impl Upload {
    /// Returns the first field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Returns the SHA-256 of the file, in lower-case hexadecimal digits.
    pub fn sha256(&self) -> String {
        let digest = Sha256::digest(&self.file);
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Takes a request apart.
pub(crate) async fn parse(request: &Request) -> Result<Upload, FormError> {
    let content_type = request.header("content-type").unwrap_or_default();
    let boundary = multer::parse_boundary(content_type)?;
    let body = request.body.clone();
    let body = futures::stream::once(async { Ok::<Bytes, Infallible>(body) });
    let mut form = Multipart::new(body, boundary);
    let mut upload = Upload {
        path: request.path().to_owned(),
        file: Bytes::new(),
        file_name: None,
        content_type: None,
        fields: Vec::new(),
        body_len: request.body.len(),
        order: Vec::new(),
    };
    let mut has_file = false;
    while let Some(field) = form.next_field().await? {
        let name = field.name().unwrap_or_default().to_owned();
        upload.order.push(name.clone());
        if name == "file" {
            has_file = true;
            upload.file_name = field.file_name().map(str::to_owned);
            upload.content_type = field.content_type().map(ToString::to_string);
            upload.file = field.bytes().await?;
        } else {
            upload.fields.push((name, field.text().await?));
        }
    }
    has_file.then_some(upload).ok_or(FormError::NoFile)
}
