//! The routes that scripts steer.

/// A route that scripts steer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// OpenRouter's `POST …/chat/completions`
    Chat,
    /// OpenRouter's `GET …/models`
    Models,
    /// OpenRouter's `GET …/key`
    Key,
    /// ElevenLabs' `POST …/text-to-speech/{voice}`, whole or streamed, with timestamps or without.
    Speech,
    /// ElevenLabs' sockets, `GET …/text-to-speech/{voice}/stream-input` and `multi-stream-input`.
    SpeechSocket,
    /// ElevenLabs' `GET …/elevenlabs/v1/models`
    SpeechModels,
    /// ElevenLabs' `GET …/voices`
    Voices,
    /// `POST …/audio/transcriptions`, and whisper.cpp's `POST …/inference`
    Transcription,
}

impl Route {
    /// Finds the route of a path, under whatever prefix the client's base URL has.
    pub(crate) fn of(path: &str) -> Option<Self> {
        const ENDS: [(&str, Route); 8] = [
            ("/chat/completions", Route::Chat),
            ("/elevenlabs/v1/models", Route::SpeechModels),
            ("/models", Route::Models),
            ("/key", Route::Key),
            ("/stream-input", Route::SpeechSocket),
            ("/multi-stream-input", Route::SpeechSocket),
            ("/audio/transcriptions", Route::Transcription),
            ("/inference", Route::Transcription),
        ];
        let known = ENDS.iter().find(|(end, _)| path.ends_with(end));
        if let Some((_, route)) = known {
            Some(*route)
        } else if path.contains("/text-to-speech/") {
            Some(Self::Speech)
        } else if path.ends_with("/voices") {
            Some(Self::Voices)
        } else {
            None
        }
    }

    /// Finds the route that administrative paths call so.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "chat" => Self::Chat,
            "models" => Self::Models,
            "key" => Self::Key,
            "speech" => Self::Speech,
            "speech_socket" => Self::SpeechSocket,
            "speech_models" => Self::SpeechModels,
            "voices" => Self::Voices,
            "transcription" => Self::Transcription,
            _ => return None,
        })
    }

    pub(crate) fn method(self) -> &'static str {
        match self {
            Self::Chat | Self::Speech | Self::Transcription => "POST",
            Self::Models | Self::Key | Self::SpeechSocket | Self::SpeechModels | Self::Voices => {
                "GET"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_route_under_any_prefix() {
        let routes = [
            ("/api/v1/chat/completions", Some(Route::Chat)),
            ("/v1/models", Some(Route::Models)),
            ("/elevenlabs/v1/models", Some(Route::SpeechModels)),
            ("/elevenlabs/v1/voices", Some(Route::Voices)),
            ("/v1/text-to-speech/v", Some(Route::Speech)),
            (
                "/v1/text-to-speech/v/stream/with-timestamps",
                Some(Route::Speech),
            ),
            (
                "/v1/text-to-speech/v/stream-input",
                Some(Route::SpeechSocket),
            ),
            (
                "/v1/text-to-speech/v/multi-stream-input",
                Some(Route::SpeechSocket),
            ),
            (
                "/whisper/v1/audio/transcriptions",
                Some(Route::Transcription),
            ),
            ("/inference", Some(Route::Transcription)),
            ("/v1/nothing", None),
        ];
        for (path, route) in routes {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }
}
