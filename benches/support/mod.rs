//! A whole server in the process of a benchmark.

use std::{collections::HashMap, net::SocketAddr};

use idol_router::{
    application::{Application, Tuning},
    config::Config,
};
use idol_simulator::Simulator;
use tempfile::TempDir;

/// With the simulator upstream, for text and for speech.
pub(crate) fn settings(simulator: &Simulator) -> HashMap<&'static str, String> {
    HashMap::from([
        ("PORT", "0".to_owned()),
        ("OPENROUTER_BASE_URL", simulator.base_url()),
        ("ELEVENLABS_BASE_URL", simulator.elevenlabs_url()),
        ("ELEVENLABS_MAX_CONCURRENCY", "1000".to_owned()),
        ("MIRROR_IDLE_SECS", "3600".to_owned()),
    ])
}

/// Serves on a free port; the directory is to outlive it.
pub(crate) fn serve(simulator: &Simulator) -> (SocketAddr, TempDir) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut settings = settings(simulator);
    settings.insert("DATA_DIR", directory.path().to_str().unwrap().to_owned());
    let (ready, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let config = Config::from_lookup(&|name| settings.get(name).cloned()).unwrap();
            let application = Application::build(config, Tuning::default()).await.unwrap();
            ready.send(application.address()).unwrap();
            application.run_until(std::future::pending()).await.unwrap();
        });
    });
    (address.recv().unwrap(), directory)
}
