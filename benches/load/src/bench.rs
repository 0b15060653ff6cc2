//! Starts what a scenario needs: the server, its upstream, the yardsticks and the clients.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{ChildStdout, Command},
};

use crate::{
    client::{self, Job},
    error::{LoadError, within},
    process::{Announces, Process, Service},
    scale::Scale,
};

/// What the server runs with, besides a directory, a port and its upstream.
///
/// Nothing here makes a turn cheaper. The JSON files wait, so that their writes do not fall into a
/// window by chance, and the bounds of upstream calls are above what the clients ask for.
pub(crate) const SETTINGS: [(&str, &str); 5] = [
    ("LOG_LEVEL", "warn"),
    ("MIRROR_IDLE_SECS", "3600"),
    ("OPENROUTER_CALLS_MAX", "50000"),
    ("OPENROUTER_MODEL_CALLS_MAX", "50000"),
    ("OPENROUTER_QUEUE_MAX", "50000"),
];

/// The programs of a run, where it writes, and how large it is.
pub(crate) struct Bench {
    /// This program, for the other roles.
    own: PathBuf,
    server: PathBuf,
    /// Where data directories are made: on a disk, as syncs to memory would cost nothing.
    work: PathBuf,
    pub(crate) scale: Scale,
}

/// A running server, with its directory.
pub(crate) struct Server {
    pub(crate) service: Service,
    pub(crate) directory: TempDir,
}

impl Server {
    pub(crate) fn address(&self) -> SocketAddr {
        self.service.address
    }

    pub(crate) async fn end(self) -> Result<TempDir, LoadError> {
        self.service.process.end().await?;
        Ok(self.directory)
    }
}

impl Bench {
    pub(crate) fn new(
        own: PathBuf,
        server: PathBuf,
        work: PathBuf,
        scale: Scale,
    ) -> Result<Self, LoadError> {
        if !server.is_file() {
            return Err(LoadError::Unusable(format!(
                "{} is missing: build it with `cargo build --release --workspace --bins`",
                server.display()
            )));
        }
        fs::create_dir_all(&work).map_err(LoadError::io(work.display().to_string()))?;
        Ok(Self {
            own,
            server,
            work,
            scale,
        })
    }

    pub(crate) fn server_program(&self) -> &Path {
        &self.server
    }

    /// An empty directory on the disk.
    pub(crate) fn directory(&self) -> Result<TempDir, LoadError> {
        TempDir::with_prefix_in("data-", &self.work).map_err(LoadError::io("a data directory"))
    }

    fn role(&self, name: &str) -> Command {
        let mut command = Command::new(&self.own);
        command.args(["role", name]);
        command
    }

    /// The server's program, in a process that ends with this one.
    fn program(&self, directory: &Path, settings: &[(&str, &str)]) -> Command {
        let mut command = self.role("program");
        command
            .arg(&self.server)
            .env_clear()
            .env("PORT", "0")
            .env("DATA_DIR", directory)
            .envs(SETTINGS)
            .envs(settings.iter().copied())
            .current_dir(directory);
        command
    }

    pub(crate) async fn server(
        &self,
        upstream: &Service,
        settings: &[(&str, &str)],
    ) -> Result<Server, LoadError> {
        self.server_in(self.directory()?, upstream, settings).await
    }

    pub(crate) async fn server_in(
        &self,
        directory: TempDir,
        upstream: &Service,
        settings: &[(&str, &str)],
    ) -> Result<Server, LoadError> {
        let mut command = self.program(directory.path(), settings);
        command.env("OPENROUTER_API_KEY", "load").env(
            "OPENROUTER_BASE_URL",
            format!("http://{}/api/v1", upstream.address),
        );
        let service = Service::start("idol-router", &mut command, Announces::Errors).await?;
        Ok(Server { service, directory })
    }

    /// Takes documents over into the log of a directory.
    pub(crate) async fn import(&self, directory: &Path, documents: &Path) -> Result<(), LoadError> {
        let mut command = self.program(directory, &[]);
        command.arg("import").arg(documents).stdout(Stdio::null());
        self.finish("the import", &mut command).await
    }

    /// Makes a log of so many conversations.
    pub(crate) async fn fill_log(
        &self,
        directory: &Path,
        conversations: u64,
    ) -> Result<(), LoadError> {
        let mut command = self.role("fill-log");
        command.arg(directory).arg(conversations.to_string());
        self.finish("the making of a log", &mut command).await
    }

    async fn finish(&self, name: &'static str, command: &mut Command) -> Result<(), LoadError> {
        const DEADLINE: Duration = Duration::from_secs(600);
        command.stdin(Stdio::null());
        let mut process = Process::start(name, command)?;
        let ended = within(name, DEADLINE, async {
            process.child.wait().await.map_err(LoadError::io(name))
        });
        match ended.await? {
            status if status.success() => Ok(()),
            status => Err(LoadError::Unusable(format!("{name}: {status}"))),
        }
    }

    pub(crate) async fn upstream(&self) -> Result<Service, LoadError> {
        Service::start("upstream", &mut self.role("upstream"), Announces::Output).await
    }

    pub(crate) async fn pass_through(&self, upstream: &Service) -> Result<Service, LoadError> {
        let mut command = self.role("pass-through");
        command.arg(format!("http://{}", upstream.address));
        Service::start("pass-through", &mut command, Announces::Output).await
    }

    pub(crate) async fn echo(&self) -> Result<Service, LoadError> {
        Service::start("echo", &mut self.role("echo"), Announces::Output).await
    }

    pub(crate) fn client(&self, job: &Job) -> Result<Running, LoadError> {
        let mut command = self.role("client");
        command.arg(serde_json::to_string(job)?);
        Running::start(&mut command)
    }

    pub(crate) fn append_log(
        &self,
        directory: &Path,
        writers: usize,
    ) -> Result<Running, LoadError> {
        let mut command = self.role("append-log");
        command
            .arg(directory)
            .arg(writers.to_string())
            .arg(self.scale.window.to_string());
        Running::start(&mut command)
    }

    /// Runs a client to its end.
    pub(crate) async fn run<T: DeserializeOwned>(&self, job: &Job) -> Result<T, LoadError> {
        self.client(job)?.outcome().await
    }
}

/// A process that tells what came of its work.
pub(crate) struct Running {
    process: Process,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    const DEADLINE: Duration = Duration::from_secs(300);

    fn start(command: &mut Command) -> Result<Self, LoadError> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start("a client", command)?;
        let pipe = process.child.stdout.take();
        let pipe = pipe.ok_or_else(|| LoadError::Ended("a client".to_owned()))?;
        Ok(Self {
            process,
            lines: BufReader::new(pipe).lines(),
        })
    }

    async fn line(&mut self) -> Result<String, LoadError> {
        let line = within("a client's work", Self::DEADLINE, async {
            self.lines
                .next_line()
                .await
                .map_err(LoadError::io("a client"))
        });
        match line.await? {
            Some(line) => Ok(line),
            // What went wrong is on the standard error.
            None => Err(LoadError::Unusable(
                "a client failed: see above what it said".to_owned(),
            )),
        }
    }

    /// Waits until it has opened all that it is to hold.
    pub(crate) async fn ready(&mut self) -> Result<(), LoadError> {
        self.line().await.map(drop)
    }

    /// Lets it close what it holds.
    pub(crate) async fn release(mut self) -> Result<(), LoadError> {
        if let Some(mut input) = self.process.child.stdin.take() {
            let told = input.write_all(b"close\n").await;
            told.map_err(LoadError::io("a client"))?;
        }
        self.line().await?;
        self.ended().await
    }

    pub(crate) async fn outcome<T: DeserializeOwned>(mut self) -> Result<T, LoadError> {
        let line = self.line().await?;
        self.ended().await?;
        client::told(&line)
    }

    async fn ended(mut self) -> Result<(), LoadError> {
        const DEADLINE: Duration = Duration::from_secs(30);
        let ended = within("a client's end", DEADLINE, async {
            let ended = self.process.child.wait().await;
            ended.map_err(LoadError::io("a client"))
        });
        match ended.await? {
            status if status.success() => Ok(()),
            status => Err(LoadError::Unusable(format!("a client failed: {status}"))),
        }
    }
}
