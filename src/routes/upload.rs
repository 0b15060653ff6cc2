//! An upload of audio: passed on to who writes it down while it comes in, never held whole.

use std::{collections::BTreeMap, time::Duration};

use actix_multipart::{Field, Multipart, MultipartError};
use actix_web::{error::PayloadError, http::header::ContentDisposition, web};
use bytes::{Bytes, BytesMut};
use idol_actors::{
    error::EngineError,
    provider::hearing::{Transcript, UploadPart},
};
use sha2::{Digest as _, Sha256};
use tokio::{select, time::timeout};

use self::{
    bounded::{Bounded, Progress},
    format::format_of,
};
use crate::{
    error::{ApiError, Payload},
    server::Server,
    session::hearing::Hearing,
    wire::fields::{FieldError, Step},
};

mod bounded;
mod format;

/// Longest time that an upload may take: 24.5 MiB at half a megabit a second.
const DEADLINE: Duration = Duration::from_secs(420);

/// Largest value of a field, in bytes.
const FIELD_BYTES_MAX: usize = 64 << 10;

/// Most fields.
const FIELDS_MAX: usize = 64;

/// Most bytes of all fields: with a file of 24.5 MiB the upstream's form has less than the 25 MiB that
/// OpenAI takes.
const FIELDS_BYTES_MAX: usize = 256 << 10;

/// What stands around a part of a form, at most: its boundary and its head.
const PART_HEAD_BYTES: usize = 1 << 10;

/// So many first bytes tell the format of a file.
const SNIFFED_BYTES: usize = 512;

/// Longest name of a field that is passed on.
const FIELD_NAME_BYTES_MAX: usize = 64;

/// Fields that the transcription provider is told where the others are ours.
const PASSED_ON: [&str; 9] = [
    "model",
    "language",
    "prompt",
    "temperature",
    "timestamp_granularities[]",
    "include[]",
    "chunking_strategy",
    "hotwords",
    "vad_filter",
];

/// What an upload brought.
#[derive(Debug)]
pub(super) struct Uploaded {
    /// The fields, but for the file.
    pub(super) fields: FormFields,
    /// What is heard in the file; none: there was none.
    pub(super) heard: Option<Transcript>,
    /// SHA-256 of the file's bytes; none: there was none.
    pub(super) digest: Option<[u8; 32]>,
}

/// Which fields of a form are told to the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// All that it may know.
    All,
    /// All but the form of the answer, which is ours.
    AllButFormat,
}

/// The fields of a form by their names, but for the file.
pub(super) type FormFields = BTreeMap<String, String>;

/// Who asks for an upload to be read.
pub(super) trait Asker {
    /// Whether the fields are as they should be, as far as they have come.
    fn check(&self, fields: &FormFields) -> Result<(), ApiError>;

    /// Whether the file is to be written down, by the fields before it.
    async fn wants(&self, fields: &FormFields) -> Result<Wanted, ApiError>;
}

/// What of a file is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// What is heard in it.
    Transcript,
    /// Whether it is the same as one that was written down before.
    Digest,
}

/// Reads a form, and has the file in it written down. Its fields are checked before the file is passed
/// on, and those behind the file before what was heard is awaited.
pub(super) async fn read<A: Asker>(
    server: &Server,
    form: UploadForm,
    told: Told,
    asker: &A,
) -> Result<Uploaded, ApiError> {
    let mut reading = Reading {
        server,
        told,
        asker,
        progress: form.progress,
        fields: BTreeMap::new(),
        count: 0,
        bytes: 0,
        to_tell: Vec::new(),
        file: File::None,
        digest: Sha256::new(),
    };
    match timeout(DEADLINE, reading.parts(form.parts)).await {
        Ok(read) => read?,
        Err(_elapsed) => return Err(ApiError::BodyTimeout),
    }
    asker.check(&reading.fields)?;
    let (heard, digest) = match reading.file {
        File::None => (None, None),
        File::Compared => (None, Some(reading.digest)),
        File::Heard(hearing) => {
            let heard = hearing.end().await.map_err(failed)?;
            (Some(heard), Some(reading.digest))
        }
    };
    Ok(Uploaded {
        fields: reading.fields,
        digest: digest.map(|digest| digest.finalize().into()),
        heard,
    })
}

struct Reading<'a, A> {
    server: &'a Server,
    told: Told,
    asker: &'a A,
    progress: Progress,
    fields: FormFields,
    /// How many fields came.
    count: usize,
    /// Bytes of their names and values.
    bytes: usize,
    /// Those that the provider is told once there is a file, as they came: some come more than once.
    to_tell: Vec<(String, String)>,
    file: File,
    digest: Sha256,
}

/// What becomes of the file of a form.
enum File {
    /// None came.
    None,
    /// It is passed on.
    Heard(Hearing),
    /// It is not.
    Compared,
}

impl File {
    fn hearing(&self) -> Option<&Hearing> {
        match self {
            Self::Heard(hearing) => Some(hearing),
            Self::None | Self::Compared => None,
        }
    }
}

impl<A: Asker> Reading<'_, A> {
    async fn parts(&mut self, mut form: Multipart) -> Result<(), ApiError> {
        while let Some(field) = self.progress.next(&mut form).await {
            let field = self.read(field)?;
            let name = field.name().unwrap_or_default().to_owned();
            match name.as_str() {
                "file" if !matches!(self.file, File::None) => {
                    return Err(wrong("file", "value_error", "Only one file is taken").into());
                }
                "file" => self.file(field).await?,
                _ => self.field(name, field).await?,
            }
            if let File::Heard(hearing) = &mut self.file
                && hearing.is_over()
                && hearing.is_refused().await
            {
                // No more need come.
                break;
            }
        }
        Ok(())
    }

    /// Something that was read of the form.
    fn read<T>(&self, read: Result<T, MultipartError>) -> Result<T, ApiError> {
        self.progress.made();
        read.map_err(|error| match error {
            MultipartError::Payload(PayloadError::Overflow) => {
                too_large(self.server.voices.audio_bytes_max)
            }
            error => ApiError::BadRequest {
                sentence: format!("The form cannot be read: {error}"),
            },
        })
    }

    async fn field(&mut self, name: String, mut field: Field) -> Result<(), ApiError> {
        let mut value = Vec::new();
        while let Some(piece) = self.progress.next(&mut field).await {
            let piece = self.read(piece)?;
            if value.len() + piece.len() > FIELD_BYTES_MAX {
                let msg = format!("Input should have at most {FIELD_BYTES_MAX} bytes");
                return Err(wrong(&name, "string_too_long", msg).into());
            }
            value.extend_from_slice(&piece);
        }
        let Ok(value) = String::from_utf8(value) else {
            return Err(wrong(&name, "string_unicode", "Input should be UTF-8").into());
        };
        // Empty is absent, as browsers send what was not filled in.
        if value.is_empty() {
            return Ok(());
        }
        self.count += 1;
        if self.count > FIELDS_MAX {
            return Err(wrong(&name, "too_long", "There are too many fields").into());
        }
        self.bytes += name.len() + value.len();
        if self.bytes > FIELDS_BYTES_MAX {
            let msg = format!("All fields together should have at most {FIELDS_BYTES_MAX} bytes");
            return Err(wrong(&name, "too_long", msg).into());
        }
        check(&name, &value)?;
        if self.told.tells(&name) {
            let (name, value) = (name.clone(), value.clone());
            match self.file.hearing() {
                Some(hearing) => {
                    let part = UploadPart::Field { name, value };
                    hearing.pass(part).await.map_err(failed)?;
                }
                None => self.to_tell.push((name, value)),
            }
        }
        self.fields.insert(name, value);
        Ok(())
    }

    async fn file(&mut self, mut field: Field) -> Result<(), ApiError> {
        let name = field.content_disposition().map(name_of).unwrap_or_default();
        let named_type = field.content_type().map(ToString::to_string);
        let limit = self.server.voices.audio_bytes_max;
        let mut first = BytesMut::new();
        let mut bytes = 0;
        let mut size = |piece: &Bytes| {
            bytes += piece.len();
            match bytes > limit {
                true => Err(too_large(limit)),
                false => Ok(()),
            }
        };
        let mut over = true;
        while let Some(piece) = self.progress.next(&mut field).await {
            let piece = self.read(piece)?;
            size(&piece)?;
            first.extend_from_slice(&piece);
            if first.len() >= SNIFFED_BYTES {
                over = false;
                break;
            }
        }
        if first.is_empty() {
            // A browser sends a file without a name where none was chosen.
            return match name.is_empty() {
                true => Ok(()),
                false => Err(ApiError::BadRequest {
                    sentence: "Empty audio file".to_owned(),
                }),
            };
        }
        self.asker.check(&self.fields)?;
        self.digest.update(&first);
        if self.asker.wants(&self.fields).await? == Wanted::Digest {
            self.file = File::Compared;
            while let Some(piece) = self.progress.next(&mut field).await {
                let piece = self.read(piece)?;
                size(&piece)?;
                self.digest.update(&piece);
            }
            return Ok(());
        }
        let (name, content_type) = format_of(&name, named_type, &first);
        let provider = self.server.voices.hearing().map_err(failed)?;
        let hearing = Hearing::begin(&provider).await.map_err(failed)?;
        for (name, value) in self.to_tell.drain(..) {
            hearing
                .pass(UploadPart::Field { name, value })
                .await
                .map_err(failed)?;
        }
        for part in [
            UploadPart::File { name, content_type },
            UploadPart::Audio(first.freeze()),
        ] {
            hearing.pass(part).await.map_err(failed)?;
        }
        self.file = File::Heard(hearing);
        let Some(hearing) = self.file.hearing() else {
            return Ok(());
        };
        if over {
            return Ok(());
        }
        loop {
            // Who answers early need not wait for what its client has still to say.
            let piece = select! {
                piece = self.progress.next(&mut field) => piece,
                () = hearing.parts().closed() => break,
            };
            let Some(piece) = piece else {
                break;
            };
            let piece = self.read(piece)?;
            size(&piece)?;
            self.digest.update(&piece);
            hearing
                .pass(UploadPart::Audio(piece))
                .await
                .map_err(failed)?;
        }
        Ok(())
    }
}

impl Told {
    fn tells(self, name: &str) -> bool {
        match self {
            // What is unknown here may be known there; but nothing is streamed.
            Self::All => is_plain(name) && name != "stream",
            Self::AllButFormat => PASSED_ON.contains(&name),
        }
    }
}

/// Whether a name can stand in the head of a part as it is.
fn is_plain(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-[].".contains(&byte);
    (1..=FIELD_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits)
}

fn too_large(limit: usize) -> ApiError {
    ApiError::PayloadTooLarge {
        what: Payload::Audio,
        limit,
    }
}

fn failed(error: EngineError) -> ApiError {
    ApiError::Engine {
        error,
        conversation: None,
    }
}

/// The name of a file, however it is written.
fn name_of(disposition: &ContentDisposition) -> String {
    let plain = disposition.get_filename().map(ToOwned::to_owned);
    plain
        .or_else(|| {
            let extended = disposition.get_filename_ext()?;
            String::from_utf8(extended.value.clone()).ok()
        })
        .unwrap_or_default()
}

/// Checks what both doors promise of a field.
fn check(name: &str, value: &str) -> Result<(), ApiError> {
    if name != "temperature" {
        return Ok(());
    }
    let number = value.trim().parse::<f64>();
    match number.is_ok_and(|number| (0.0..=1.0).contains(&number)) {
        true => Ok(()),
        false => {
            let msg = "Input should be a number from 0 to 1";
            Err(wrong(name, "float_parsing", msg).into())
        }
    }
}

pub(super) fn wrong(name: &str, kind: &'static str, msg: impl Into<String>) -> FieldError {
    FieldError {
        kind,
        loc: vec![
            Step::Name("body".into()),
            Step::Name(name.to_owned().into()),
        ],
        msg: msg.into(),
        input: None,
    }
}

/// Whether a request's body is a form with files.
pub(super) fn is_multipart(request: &actix_web::HttpRequest) -> bool {
    let media = request.headers().get(actix_web::http::header::CONTENT_TYPE);
    let media = media
        .and_then(|media| media.to_str().ok())
        .unwrap_or_default();
    let media = media.trim_start().as_bytes();
    let multipart = b"multipart/form-data";
    media.len() >= multipart.len() && media[..multipart.len()].eq_ignore_ascii_case(multipart)
}

/// The parts of a request's form. One that says that it is too large is refused before it is read.
pub(super) fn form(
    server: &Server,
    request: &actix_web::HttpRequest,
    payload: web::Payload,
) -> Result<UploadForm, ApiError> {
    let headers = request.headers();
    let length = headers.get(actix_web::http::header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let limit = server.voices.audio_bytes_max;
    // What is not the file: the fields, and what stands around each part.
    let whole = limit + FIELDS_BYTES_MAX + FIELDS_MAX * PART_HEAD_BYTES;
    if length.is_some_and(|length| length > whole) {
        return Err(too_large(limit));
    }
    let progress = Progress::default();
    let bounded = Bounded::new(payload, whole, progress.clone());
    Ok(UploadForm {
        parts: Multipart::new(headers, bounded),
        progress,
    })
}

/// A form that is being read.
pub(super) struct UploadForm {
    parts: Multipart,
    /// To be told of whatever is read of it.
    progress: Progress,
}
