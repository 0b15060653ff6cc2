//! A whole server in the process of a benchmark.

use std::{collections::HashMap, net::SocketAddr};

use idol_router::{
    application::{Application, Tuning},
    config::Config,
};
use idol_simulator::Simulator;
use tempfile::TempDir;

/// Serves on a free port, with the simulator upstream; the directory is to outlive it.
pub(crate) fn serve(simulator: &Simulator) -> (SocketAddr, TempDir) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let settings = HashMap::from([
        ("PORT", "0".to_owned()),
        ("DATA_DIR", directory.path().to_str().unwrap().to_owned()),
        ("OPENROUTER_BASE_URL", simulator.base_url()),
        ("MIRROR_IDLE_SECS", "3600".to_owned()),
    ]);
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
