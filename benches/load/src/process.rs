//! Processes of a run: how they are started and ended, and what they use.

use std::{fs, net::SocketAddr, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    task::JoinSet,
};

use crate::error::{LoadError, within};

const START_DEADLINE: Duration = Duration::from_secs(60);
/// In which `/proc` counts CPU: the kernel's interface, whatever its own clock is.
const TICKS_PER_SECOND: f64 = 100.0;
const ANNOUNCEMENT: &str = "listening on http://";

/// A process of this run; it dies with its handle.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    id: u32,
    pub(crate) child: Child,
}

impl Process {
    pub(crate) fn start(name: &'static str, command: &mut Command) -> Result<Self, LoadError> {
        let child = command
            .kill_on_drop(true)
            .spawn()
            .map_err(LoadError::io(format!("{name} cannot be started")))?;
        let id = child
            .id()
            .ok_or_else(|| LoadError::Ended(name.to_owned()))?;
        Ok(Self { name, id, child })
    }

    /// CPU that it has used, user and system, in seconds.
    pub(crate) fn cpu(&self) -> Result<f64, LoadError> {
        let stat = self.read("stat")?;
        let ticks = cpu_ticks(&stat).ok_or_else(|| self.unreadable("stat"))?;
        #[expect(clippy::cast_precision_loss, reason = "ticks of a short run")]
        Ok(ticks as f64 / TICKS_PER_SECOND)
    }

    /// Memory that it has resident, in bytes.
    pub(crate) fn resident(&self) -> Result<f64, LoadError> {
        let status = self.read("status")?;
        let kib = number_after(&status, "VmRSS:").ok_or_else(|| self.unreadable("status"))?;
        Ok(kib * 1024.0)
    }

    /// Bytes that it has sent to the disk.
    pub(crate) fn written(&self) -> Result<f64, LoadError> {
        let io = self.read("io")?;
        number_after(&io, "write_bytes:").ok_or_else(|| self.unreadable("io"))
    }

    fn read(&self, file: &str) -> Result<String, LoadError> {
        let path = format!("/proc/{}/{file}", self.id);
        fs::read_to_string(&path).map_err(LoadError::io(format!("{} ({path})", self.name)))
    }

    fn unreadable(&self, file: &str) -> LoadError {
        LoadError::Unusable(format!("/proc/{}/{file} is not as expected", self.id))
    }

    /// Ends it at once: what it would still write is of no use to a measurement.
    pub(crate) async fn end(mut self) -> Result<(), LoadError> {
        let name = self.name;
        let killed = self.child.kill().await;
        killed.map_err(LoadError::io(format!("{name} cannot be ended")))
    }
}

/// A process that serves on a port of its own.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    /// Passes on what it says.
    _says: JoinSet<()>,
}

/// Where a service says its address.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Announces {
    Output,
    Errors,
}

impl Service {
    /// Starts it and waits until it says its address.
    pub(crate) async fn start(
        name: &'static str,
        command: &mut Command,
        announces: Announces,
    ) -> Result<Self, LoadError> {
        command.stdin(Stdio::null());
        match announces {
            Announces::Output => command.stdout(Stdio::piped()),
            Announces::Errors => command.stdout(Stdio::null()).stderr(Stdio::piped()),
        };
        let mut process = Process::start(name, command)?;
        let ended = || LoadError::Ended(name.to_owned());
        let (address, says) = match announces {
            Announces::Output => {
                let pipe = process.child.stdout.take().ok_or_else(ended)?;
                listening(name, BufReader::new(pipe)).await?
            }
            Announces::Errors => {
                let pipe = process.child.stderr.take().ok_or_else(ended)?;
                listening(name, BufReader::new(pipe)).await?
            }
        };
        Ok(Self {
            process,
            address,
            _says: says,
        })
    }
}

async fn listening(
    name: &'static str,
    pipe: impl AsyncBufRead + Unpin + Send + 'static,
) -> Result<(SocketAddr, JoinSet<()>), LoadError> {
    let mut lines = pipe.lines();
    let what = format!("the start of {name}");
    let address = within(&what, START_DEADLINE, async {
        loop {
            let line = lines.next_line().await.map_err(LoadError::io(name))?;
            let line = line.ok_or_else(|| LoadError::Ended(name.to_owned()))?;
            match line.split_once(ANNOUNCEMENT) {
                Some((_, address)) => {
                    let address = address.trim().trim_end_matches('/').parse();
                    break address.map_err(|_| LoadError::Unusable(format!("{name} says: {line}")));
                }
                None => eprintln!("{name}: {line}"),
            }
        }
    })
    .await?;
    // Whatever else it says is passed on: a pipe that nobody reads would fill.
    let mut says = JoinSet::new();
    says.spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            eprintln!("{name}: {line}");
        }
    });
    Ok((address, says))
}

/// User and system ticks in the text of `/proc/PID/stat`.
fn cpu_ticks(stat: &str) -> Option<u64> {
    // The name of the program, in parentheses, may hold anything.
    let fields = stat.get(stat.rfind(')')? + 1..)?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The number that follows a name in the lines of a `/proc` file.
pub(crate) fn number_after(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_stand_behind_the_name() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194304 100 0 0 0 17 25 0 0 20 0 3 0 99";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("42"), None);
    }

    #[test]
    fn a_number_stands_behind_its_name() {
        let status = "Name:\tx\nVmRSS:\t  1536 kB\nThreads:\t2\n";
        assert_eq!(number_after(status, "VmRSS:"), Some(1536.0));
        assert_eq!(number_after(status, "VmSwap:"), None);
    }
}
