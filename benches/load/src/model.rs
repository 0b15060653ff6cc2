//! The model name of the upstream double: it says what the reply shall be.

use std::{
    fmt::{self, Display},
    str::FromStr,
    time::Duration,
};

use crate::error::LoadError;

const PREFIX: &str = "load/";

/// What the tokens of a reply are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) enum Words {
    /// The same words each time, some of which need escapes in JSON.
    #[default]
    Fixed,
    /// The time at which each was sent: nanoseconds of the machine's monotonic clock.
    Stamps,
}

/// A reply, as `load/tokens=64,first=0,gap=0,batch=0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Model {
    /// How many tokens there are.
    pub(crate) tokens: u32,
    /// Milliseconds until the first one.
    pub(crate) first: u64,
    /// Milliseconds between two; with a gap each has a write of its own.
    pub(crate) gap: u64,
    /// Tokens in one write; 0: as many as fit 4 KiB.
    pub(crate) batch: usize,
    /// What they are.
    pub(crate) words: Words,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            tokens: 64,
            first: 0,
            gap: 0,
            batch: 0,
            words: Words::Fixed,
        }
    }
}

impl Model {
    pub(crate) fn first(&self) -> Duration {
        Duration::from_millis(self.first)
    }

    pub(crate) fn gap(&self) -> Duration {
        Duration::from_millis(self.gap)
    }

    /// Text of the token of this number where the words are fixed.
    pub(crate) fn word(number: u32) -> String {
        const WORDS: [&str; 8] = [
            "the ", "cat ", "said ", "\"yes\" ", "in ", "a ", "café ", "\n",
        ];
        let word = WORDS[number as usize % WORDS.len()];
        format!("{number}{word}")
    }

    /// The whole reply where the words are fixed.
    pub(crate) fn text(&self) -> String {
        (0..self.tokens).map(Self::word).collect()
    }
}

impl Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            tokens,
            first,
            gap,
            batch,
            words,
        } = self;
        write!(
            f,
            "{PREFIX}tokens={tokens},first={first},gap={gap},batch={batch}"
        )?;
        match words {
            Words::Fixed => Ok(()),
            Words::Stamps => f.write_str(",words=stamps"),
        }
    }
}

impl FromStr for Model {
    type Err = LoadError;

    fn from_str(name: &str) -> Result<Self, LoadError> {
        let unusable = || LoadError::Unusable(format!("no model of the load test: {name}"));
        let mut model = Self::default();
        let options = name.strip_prefix(PREFIX).ok_or_else(unusable)?;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').ok_or_else(unusable)?;
            let number = || value.parse::<u64>().map_err(|_| unusable());
            match key {
                "tokens" => model.tokens = u32::try_from(number()?).map_err(|_| unusable())?,
                "first" => model.first = number()?,
                "gap" => model.gap = number()?,
                "batch" => model.batch = usize::try_from(number()?).map_err(|_| unusable())?,
                "words" if value == "stamps" => model.words = Words::Stamps,
                _ => return Err(unusable()),
            }
        }
        Ok(model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_back_as_it_was() {
        let model = Model {
            tokens: 32,
            first: 50,
            gap: 10,
            batch: 1,
            words: Words::Stamps,
        };
        assert_eq!(model.to_string().parse::<Model>().unwrap(), model);
        assert_eq!("load/".parse::<Model>().unwrap(), Model::default());
    }

    #[test]
    fn what_it_does_not_know_is_refused() {
        for name in [
            "tokens=1",
            "load/tokens",
            "load/tokens=x",
            "load/size=1",
            "load/words=none",
        ] {
            assert!(name.parse::<Model>().is_err(), "{name}");
        }
    }

    #[test]
    fn the_text_is_its_words() {
        let model = Model {
            tokens: 3,
            ..Model::default()
        };
        assert_eq!(model.text(), "0the 1cat 2said ");
    }
}
