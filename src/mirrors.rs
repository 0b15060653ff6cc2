//! The mirrors of one server: started, flushed and stopped together.

use std::{sync::Arc, time::Duration};

use actix::Recipient;
use idol_actors::{
    log::{data_dir::DataDir, space::DiskSpace, sqlite::SqliteLog},
    mirror::{
        Adopter, Changed, Flush, RemoteDocuments,
        json_files::{JsonFiles, JsonFilesOptions, MirrorState, Running as Files},
        supabase::{Deadlines, SupabaseClient, SupabaseConfig, SupabaseConfigError},
        supabase_mirror::{
            Running as Supabase, SupabaseDocuments, SupabaseMirror, SupabaseOptions, SupabaseState,
            Waits,
        },
    },
    rendering::DocumentRenderer,
};
use tokio::sync::watch;

pub use self::metrics::MirrorMetrics;
use crate::{application::Tuning, config::Config};

mod metrics;

/// The mirrors that run.
#[derive(Debug)]
pub struct Mirrors {
    files: Files,
    supabase: Option<Supabase>,
    documents: Option<SupabaseDocuments>,
}

impl Mirrors {
    /// Starts those that are configured. Needs a running actix system.
    pub fn start(
        config: &Config,
        tuning: &Tuning,
        data_dir: &DataDir,
        log: &Arc<SqliteLog>,
        space: &Arc<DiskSpace>,
    ) -> Result<Self, SupabaseConfigError> {
        let client = supabase_client(config)?;
        let documents = client.clone().map(SupabaseDocuments::new);
        let supabase = client.map(|client| start_supabase(config, tuning, log, client));
        let files = JsonFiles::run(
            log.clone(),
            Arc::new(DocumentRenderer { log: log.log_id() }),
            JsonFilesOptions {
                dir: data_dir.conversations(),
                idle: config.storage.mirror_idle,
                hook: tuning.mirror.clone(),
                space: Some(space.clone()),
            },
        );
        Ok(Self {
            files,
            supabase,
            documents,
        })
    }

    /// Where each is told what changes.
    #[must_use]
    pub fn recipients(&self) -> Vec<Recipient<Changed>> {
        let supabase = self.supabase.iter();
        let supabase = supabase.map(|mirror| mirror.address.clone().recipient());
        [self.files.address.clone().recipient()]
            .into_iter()
            .chain(supabase)
            .collect()
    }

    /// Names who takes over what only a mirror holds.
    pub fn connect(&self, adopter: &Arc<dyn Adopter>) {
        self.files.connect(adopter.clone());
        if let Some(supabase) = &self.supabase {
            supabase.connect(adopter.clone());
        }
    }

    /// Where documents may be that the log does not have.
    #[must_use]
    pub fn documents(&self) -> Option<Arc<dyn RemoteDocuments>> {
        let documents = self.documents.clone()?;
        Some(Arc::new(documents))
    }

    /// What they are at, as metrics.
    #[must_use]
    pub fn metrics(&self) -> MirrorMetrics {
        MirrorMetrics {
            json_files: self.json_files_state(),
            supabase: self.supabase_state(),
        }
    }

    /// What the JSON files are at.
    #[must_use]
    pub fn json_files_state(&self) -> watch::Receiver<MirrorState> {
        self.files.state.clone()
    }

    /// What the copy in Supabase is at; `None`: there is none.
    #[must_use]
    pub fn supabase_state(&self) -> Option<watch::Receiver<SupabaseState>> {
        self.supabase.as_ref().map(|mirror| mirror.state.clone())
    }

    /// Has all of them write what they lack, side by side.
    pub async fn flush(&self, deadline: Duration) {
        let files = self.files.address.send(Flush { deadline });
        let supabase = async {
            match &self.supabase {
                Some(mirror) => mirror.address.send(Flush { deadline }).await,
                None => Ok(0),
            }
        };
        let (files, supabase) = futures::join!(files, supabase);
        if !matches!(files, Ok(0)) {
            tracing::info!("some JSON files are behind the log; the next start writes them");
        }
        if !matches!(supabase, Ok(0)) {
            tracing::info!("Supabase is behind the log; the next start goes on");
        }
    }

    /// Ends their threads.
    pub fn stop(&self) {
        self.files.stop();
        if let Some(supabase) = &self.supabase {
            supabase.stop();
        }
    }
}

/// The client of the project, if one is configured.
fn supabase_client(config: &Config) -> Result<Option<SupabaseClient>, SupabaseConfigError> {
    let Some(supabase) = &config.supabase else {
        return Ok(None);
    };
    let client = SupabaseClient::new(&SupabaseConfig {
        url: supabase.url.as_str().to_owned(),
        service_role_key: supabase.service_role_key.clone(),
        bucket: supabase.bucket.clone(),
        deadlines: Deadlines {
            connect: supabase.connect_timeout,
            request: supabase.timeout,
        },
    })?;
    Ok(Some(client))
}

fn start_supabase(
    config: &Config,
    tuning: &Tuning,
    log: &Arc<SqliteLog>,
    client: SupabaseClient,
) -> Supabase {
    let waits = tuning.supabase_waits.clone().unwrap_or_else(|| {
        let waits = Waits::default();
        let timeout = config.supabase.as_ref().map(|it| it.timeout);
        Waits {
            // A write may be with the server for as long as we wait for its answer, and some more.
            unconfirmed: waits.unconfirmed.max(timeout.unwrap_or_default() * 2),
            ..waits
        }
    });
    SupabaseMirror::run(
        log.clone(),
        Arc::new(DocumentRenderer { log: log.log_id() }),
        SupabaseOptions {
            client,
            idle: config.storage.mirror_idle,
            waits,
            hook: tuning.mirror.clone(),
        },
    )
}
