//! Reads variables into checked values and keeps every complaint.

use std::{fmt, ops::RangeInclusive, time::Duration};

use secrecy::SecretString;
use tracing_subscriber::EnvFilter;
use url::{Host, Url};

use super::{
    dotenv::MalformedLine,
    parts::{AllowedOrigins, BaseUrl},
    variable::Variable,
};

/// One reason not to start; its text is one sentence that names the variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A variable has a value that cannot be used.
    #[error("{variable} must be {expected}{}", shown(.value))]
    Invalid {
        /// Its name.
        variable: &'static str,
        /// What it may be.
        expected: String,
        /// What it is; left out where it may hold a secret.
        value: Option<String>,
    },
    /// A variable is not UTF-8.
    #[error("{variable} is not valid UTF-8")]
    NotUnicode {
        /// Its name.
        variable: &'static str,
    },
    /// `.env` is there and cannot be read.
    #[error(".env cannot be read: {0}")]
    DotenvUnreadable(String),
    /// `.env` has a line that is no assignment.
    #[error(".env, {0}")]
    DotenvMalformed(MalformedLine),
}

fn shown(value: &Option<String>) -> String {
    value
        .as_ref()
        .map_or(String::new(), |value| format!(", and is {value:?}"))
}

/// Everything that is wrong with the configuration, a line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(f, "{line_break}{error}")?;
        }
        Ok(())
    }
}

/// Reads one variable after the other.
///
/// After a complaint it hands out a placeholder and goes on, so that the operator learns of all
/// mistakes at once; [`Reader::finish`] then refuses, and no placeholder gets out.
pub(super) struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    errors: Vec<ConfigError>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            lookup,
            errors: Vec::new(),
        }
    }

    pub(super) fn finish<T>(self, config: T) -> Result<T, ConfigErrors> {
        if self.errors.is_empty() {
            Ok(config)
        } else {
            Err(ConfigErrors(self.errors))
        }
    }

    /// The value without surrounding space, or the default; `None` where neither is there.
    pub(super) fn optional(&self, variable: &Variable) -> Option<String> {
        let set = (self.lookup)(variable.name);
        let text = set.as_deref().map(str::trim).unwrap_or_default();
        [text, variable.default]
            .into_iter()
            .find(|text| !text.is_empty())
            .map(str::to_owned)
    }

    pub(super) fn text(&self, variable: &Variable) -> String {
        self.optional(variable).unwrap_or_default()
    }

    /// Whether the operator gave it a value.
    pub(super) fn is_set(&self, variable: &Variable) -> bool {
        (self.lookup)(variable.name).is_some_and(|value| !value.trim().is_empty())
    }

    pub(super) fn number<T>(&mut self, variable: &Variable, range: RangeInclusive<u64>) -> T
    where
        T: TryFrom<u64> + Default,
    {
        let text = self.text(variable);
        let number = text.parse().ok().filter(|number| range.contains(number));
        match number.and_then(|number| T::try_from(number).ok()) {
            Some(number) => number,
            None => {
                let (least, most) = range.into_inner();
                self.complain(
                    variable,
                    format!("a whole number from {least} to {most}"),
                    Some(text),
                )
            }
        }
    }

    pub(super) fn seconds(&mut self, variable: &Variable, range: RangeInclusive<u64>) -> Duration {
        Duration::from_secs(self.number(variable, range))
    }

    pub(super) fn flag(&mut self, variable: &Variable) -> bool {
        let text = self.text(variable);
        match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => true,
            "0" | "false" | "no" | "off" => false,
            _ => self.complain(variable, "true or false", Some(text)),
        }
    }

    /// One of a few words, in any case. The first is the placeholder.
    pub(super) fn choice<T: Copy + Default>(
        &mut self,
        variable: &Variable,
        choices: &[(&str, T)],
    ) -> T {
        let text = self.text(variable);
        match choices
            .iter()
            .find(|(word, _)| word.eq_ignore_ascii_case(&text))
        {
            Some((_, choice)) => *choice,
            None => {
                let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
                self.complain(variable, words.join(" or "), Some(text))
            }
        }
    }

    /// An IP address or a host name, without the brackets an IPv6 address has in a URL.
    pub(super) fn host(&mut self, variable: &Variable) -> String {
        let text = self.text(variable);
        let bare = text
            .strip_prefix('[')
            .and_then(|inner| inner.strip_suffix(']'))
            .unwrap_or(&text);
        let is_name = || {
            bare.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        };
        if bare.parse::<std::net::IpAddr>().is_ok() || is_name() {
            return bare.to_owned();
        }
        self.complain(variable, "an IP address or a host name", Some(text))
    }

    /// A key, which goes into a header: visible ASCII.
    pub(super) fn secret(&mut self, variable: &Variable) -> Option<SecretString> {
        let text = self.optional(variable)?;
        if text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Some(text.into());
        }
        // Shown to nobody: it is a key with a slip in it.
        self.complain(variable, "visible ASCII characters without a space", None)
    }

    /// Text that goes into a header.
    pub(super) fn header(&mut self, variable: &Variable) -> Option<String> {
        let text = self.optional(variable)?;
        if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Some(text);
        }
        self.complain(variable, "one line of ASCII text", Some(text))
    }

    pub(super) fn base_url(&mut self, variable: &Variable) -> BaseUrl {
        let text = self.text(variable);
        self.checked_url(variable, &text)
    }

    pub(super) fn optional_url(&mut self, variable: &Variable) -> Option<BaseUrl> {
        let text = self.optional(variable)?;
        Some(self.checked_url(variable, &text))
    }

    fn checked_url(&mut self, variable: &Variable, text: &str) -> BaseUrl {
        match base_url(text) {
            Some(url) => BaseUrl(url),
            // Not shown: what was pasted here may hold a password.
            None => self.complain(
                variable,
                "an http:// or https:// URL without user name, query or fragment",
                None,
            ),
        }
    }

    /// An id that stands in the path of a request.
    pub(super) fn name(&mut self, variable: &Variable) -> String {
        let text = self.text(variable);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if text.len() <= 128 && text.bytes().all(allowed) {
            return text;
        }
        let expected = "up to 128 letters, digits, `_`, `-` or `.`";
        self.complain(variable, expected, Some(text))
    }

    /// The path of a request.
    pub(super) fn path(&mut self, variable: &Variable) -> String {
        let text = self.text(variable);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-.".contains(&byte);
        if text.starts_with('/') && text.bytes().all(allowed) {
            return text;
        }
        let expected = "a path that begins with /, of letters, digits, `/`, `_`, `-` or `.`";
        self.complain(variable, expected, Some(text))
    }

    /// The name of a Storage bucket.
    pub(super) fn bucket(&mut self, variable: &Variable) -> String {
        let text = self.text(variable);
        let allowed = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'/';
        let folds = matches!(text.as_str(), "." | "..");
        if text.len() <= 100 && !folds && text.bytes().all(allowed) {
            return text;
        }
        self.complain(
            variable,
            "a name of up to 100 ASCII characters without /",
            Some(text),
        )
    }

    /// Complains if one of two variables is set that make sense together alone.
    pub(super) fn both(&mut self, one: &Variable, other: &Variable) {
        let (missing, set) = match (self.is_set(one), self.is_set(other)) {
            (true, false) => (other, one),
            (false, true) => (one, other),
            (true, true) | (false, false) => return,
        };
        self.complain(missing, format!("set, since {} is", set.name), None)
    }

    pub(super) fn origins(&mut self, variable: &Variable) -> AllowedOrigins {
        let text = self.text(variable);
        let mut origins = Vec::new();
        for entry in text.split(',').map(str::trim) {
            match entry {
                "" => {}
                "*" => return AllowedOrigins::Any,
                entry => match origin(entry) {
                    Some(origin) => origins.push(origin),
                    None => {
                        return self.complain(
                            variable,
                            "* or origins like https://example.org, comma-separated",
                            Some(entry.to_owned()),
                        );
                    }
                },
            }
        }
        AllowedOrigins::Only(origins)
    }

    /// Words between commas.
    pub(super) fn list(&mut self, variable: &Variable) -> Vec<String> {
        let text = self.text(variable);
        let words = text.split(',').map(str::trim);
        words
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// A level, or a list of directives for [`EnvFilter`].
    pub(super) fn log_filter(&mut self, variable: &Variable) -> String {
        let text = self.text(variable);
        // A lone word that is no level would be taken as the name of a module, and silence all others.
        let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let is_level = text.parse::<tracing::level_filters::LevelFilter>().is_ok();
        let usable = if is_word {
            is_level
        } else {
            EnvFilter::builder().parse(&text).is_ok()
        };
        if usable {
            return text;
        }
        self.complain(
            variable,
            "error, warn, info, debug, trace, off, or a list like info,idol_actors=debug",
            Some(text),
        )
    }

    fn complain<T: Default>(
        &mut self,
        variable: &Variable,
        expected: impl Into<String>,
        value: Option<String>,
    ) -> T {
        self.errors.push(ConfigError::Invalid {
            variable: variable.name,
            expected: expected.into(),
            value,
        });
        T::default()
    }
}

/// Checks a base URL and strips its trailing slashes, so that paths can be appended.
fn base_url(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    plain.then(|| url.as_str().trim_end_matches('/').to_owned())
}

/// The origin as a browser spells it: lower case, no default port, no trailing slash.
fn origin(text: &str) -> Option<String> {
    if text == "null" {
        return Some(text.to_owned());
    }
    let url = Url::parse(text).ok()?;
    let has_host = matches!(url.host(), Some(Host::Domain(host)) if !host.is_empty())
        || matches!(url.host(), Some(Host::Ipv4(_) | Host::Ipv6(_)));
    let plain = has_host
        && url.username().is_empty()
        && url.password().is_none()
        && matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none();
    plain.then(|| url.as_str().trim_end_matches('/').to_ascii_lowercase())
}
