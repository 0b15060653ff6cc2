//! How a client wants to be spoken to.

use std::sync::Arc;

use idol_actors::{provider::speech::Voice, voice::format::AudioFormat};

use super::fields::Fields;

/// What an operator chose for every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoiceDefaults {
    /// Voice of a request that names none.
    pub voice_id: String,
    /// Speech model of a request that names none.
    pub model_id: String,
    /// Transcription model of a request that names none.
    pub hearing_model_id: String,
    /// Whether a request may name another speech model.
    pub models: SpeechModels,
}

/// Which speech models there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpeechModels {
    /// Those of the provider.
    Named,
    /// The default alone: who speaks says what it is, whatever was asked for.
    DefaultAlone,
}

impl VoiceDefaults {
    /// The model that speaks for a request.
    #[must_use]
    pub fn model_for(&self, named: String) -> String {
        match self.models {
            SpeechModels::Named => named,
            SpeechModels::DefaultAlone => self.model_id.clone(),
        }
    }
}

/// What the format is called in a request over HTTP.
pub const OVER_HTTP: &[&str] = &["output_format"];

/// Longest id of a voice or a speech model, in bytes.
const ID_BYTES_MAX: usize = 128;

/// Reads the voice fields of a body: `voice_id`, `model_id`, the format by one of these names,
/// `stability`, `similarity_boost`, `style`, `use_speaker_boost`, `speed`. What is wrong is kept in
/// `fields`.
pub fn voice_of(
    fields: &mut Fields<'_>,
    format_names: &[&'static str],
    defaults: &VoiceDefaults,
) -> Arc<Voice> {
    let mut names = format_names.iter();
    let named = names.find_map(|name| Some((*name, fields.filled(name)?)));
    let format = match named {
        Some((field, name)) => format_of(fields, field, &name),
        None => AudioFormat::MP3_44100_128,
    };
    let model_id = id_of(fields, "model_id", &defaults.model_id);
    Arc::new(Voice {
        voice_id: id_of(fields, "voice_id", &defaults.voice_id),
        model_id: defaults.model_for(model_id),
        format,
        stability: fields.number("stability", 0.0, 1.0).unwrap_or(0.5),
        similarity_boost: fields.number("similarity_boost", 0.0, 1.0).unwrap_or(0.75),
        style: fields.number("style", 0.0, 1.0).unwrap_or(0.0),
        use_speaker_boost: fields.flag("use_speaker_boost").unwrap_or(true),
        speed: fields.number("speed", 0.7, 1.2),
    })
}

/// A format by its name; a wrong one is said of this field.
pub fn format_of(fields: &mut Fields<'_>, field: &'static str, name: &str) -> AudioFormat {
    AudioFormat::parse(name).unwrap_or_else(|unknown| {
        fields.wrong(field, "value_error", format!("{name:?} {unknown}"));
        AudioFormat::MP3_44100_128
    })
}

/// An id, which stands in the path of a request.
fn id_of(fields: &mut Fields<'_>, field: &'static str, default: &str) -> String {
    let Some(id) = fields
        .bounded(field, ID_BYTES_MAX)
        .filter(|id| !id.is_empty())
    else {
        return default.to_owned();
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if !id.bytes().all(allowed) || id.starts_with('.') {
        let expected = "Input should be letters, digits, `_`, `-` or `.`";
        fields.wrong(field, "string_pattern_mismatch", expected);
    }
    id
}
