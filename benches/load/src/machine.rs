//! What a run was made on and with.

use std::{fs, path::Path, process::Command};

use serde::{Deserialize, Serialize};

/// Facts that figures depend on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) processor: String,
    pub(crate) kernel: String,
    /// Load average of a minute at the start: what else ran.
    pub(crate) load_average: String,
    /// `git describe` of the sources around the server's program, where there is a repository.
    pub(crate) server: String,
}

impl Machine {
    pub(crate) fn read(server: &Path) -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let processors = read("/proc/cpuinfo");
        let load = read("/proc/loadavg");
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: processor(&processors).unwrap_or("unknown").to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_average: load.split(' ').next().unwrap_or_default().to_owned(),
            server: describe(server).unwrap_or_else(|| "unknown".to_owned()),
        }
    }

    pub(crate) fn lines(&self) -> String {
        let Self {
            cores,
            processor,
            kernel,
            load_average,
            server,
        } = self;
        format!(
            "{cores} cores of {processor}, Linux {kernel}, load average {load_average} at the start; \
             sources {server}"
        )
    }
}

fn processor(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

/// What `git` says of the directory that the program was built in, else of the one we are in.
fn describe(server: &Path) -> Option<String> {
    [server.parent()?, Path::new(".")]
        .into_iter()
        .find_map(|directory| {
            let told = Command::new("git")
                .args(["describe", "--always", "--dirty", "--tags"])
                .current_dir(directory)
                .output()
                .ok()?;
            let text = String::from_utf8(told.stdout).ok()?;
            Some(text.trim().to_owned()).filter(|text| told.status.success() && !text.is_empty())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_has_a_name() {
        let text = "processor\t: 0\nmodel name\t: A CPU @ 2 GHz\n";
        assert_eq!(processor(text), Some("A CPU @ 2 GHz"));
        assert_eq!(processor(""), None);
    }
}
