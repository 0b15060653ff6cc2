//! The files of a run.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::{error::LoadError, figure::Figure, machine::Machine};

/// A run as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Results {
    /// When it ended, RFC 3339.
    pub(crate) at: String,
    /// `quick` or `full`.
    pub(crate) scale: String,
    /// The sizes of the run.
    pub(crate) sizes: serde_json::Value,
    pub(crate) machine: Machine,
    /// What the server ran with.
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) figures: Vec<Figure>,
}

impl Results {
    /// The figure of an earlier run that a figure is to be compared with.
    pub(crate) fn same(&self, figure: &Figure) -> Option<&Figure> {
        self.figures
            .iter()
            .find(|other| other.key() == figure.key())
    }
}

const LAST: &str = "last.json";

/// The run before; none: there was none, or its file is of another version.
pub(crate) fn previous(directory: &Path) -> Option<Results> {
    let text = fs::read(directory.join(LAST)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Keeps a run under its time, and as the last one. Figures of scenarios that it left out stay as
/// they were in the last one.
pub(crate) fn keep(
    directory: &Path,
    results: &Results,
    previous: Option<&Results>,
) -> Result<(), LoadError> {
    let stamp: String = results
        .at
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric())
        .collect();
    write(&directory.join(format!("{stamp}.json")), results)?;
    let mut last = results.clone();
    let ran = |scenario: &str| results.figures.iter().any(|it| it.scenario == scenario);
    for figure in previous.iter().flat_map(|before| &before.figures) {
        if !ran(&figure.scenario) {
            last.figures.push(figure.clone());
        }
    }
    write(&directory.join(LAST), &last)
}

fn write(path: &Path, results: &Results) -> Result<(), LoadError> {
    let text = serde_json::to_string_pretty(results)?;
    fs::write(path, text).map_err(LoadError::io(path.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(at: &str, scenarios: &[&str]) -> Results {
        Results {
            at: at.to_owned(),
            scale: "quick".to_owned(),
            sizes: serde_json::Value::Null,
            machine: Machine::read(Path::new(".")),
            settings: Vec::new(),
            figures: scenarios
                .iter()
                .map(|name| Figure::new(name, "x", "s", 1.0))
                .collect(),
        }
    }

    #[test]
    fn what_was_left_out_stays_in_the_last_one() {
        let directory = tempfile::tempdir().unwrap();
        assert!(previous(directory.path()).is_none());
        keep(
            directory.path(),
            &results("2026-01-01T00:00:00Z", &["a", "b"]),
            None,
        )
        .unwrap();
        let before = previous(directory.path()).unwrap();
        let only = results("2026-01-02T00:00:00Z", &["b"]);
        keep(directory.path(), &only, Some(&before)).unwrap();
        let last = previous(directory.path()).unwrap();
        let names: Vec<&str> = last.figures.iter().map(|it| &*it.scenario).collect();
        assert_eq!(names, ["b", "a"]);
        assert!(directory.path().join("20260102T000000Z.json").is_file());
    }
}
