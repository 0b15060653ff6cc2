//! What was promised is there after SIGKILL, wherever it falls.
//!
//! Many clients talk to the real server over every door; some have a conversation of their own, and
//! ask for another reply now and then. The server is killed at a random moment and
//! started again on the same directory, where every message that a client was told of is looked
//! up, byte for byte. Then the clients go on: what they have no answer to they send again, with the
//! same key. The directory lives on through all rounds, so that histories grow.
//!
//! `IDOL_CRASH_ROUNDS` sets the number of rounds, `IDOL_CRASH_SEED` what the clients say and when
//! the kills fall. Where a kill meets the server is left to chance even so.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use idol_simulator::Simulator;
use serde_json::Value;

use self::{
    check::Seen,
    client::{Asks, Client, Door, Going},
};
use crate::{
    helpers::{BUCKET, SERVICE_KEY, Setup, mirrored, number, within},
    process::{Launch, Process},
};

mod check;
mod client;

const CLIENTS: usize = 24;
const CONVERSATIONS: usize = 12;

/// Clients that have a conversation each.
const ALONE: usize = 6;
const ROUNDS: usize = 20;

/// One round in so many is long enough that text is seen well before the kill.
const LONG_ROUND: usize = 5;

/// Text that was seen so long before a kill must be there. The promise is half a second; what is
/// more allows for a machine on which this process learns late of what the server showed.
const SEEN_BEFORE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_was_acknowledged_before_a_kill_is_there_after_it_exactly_once() {
    let rounds = number("IDOL_CRASH_ROUNDS").map_or(ROUNDS, |rounds| rounds as usize);
    let seed = number("IDOL_CRASH_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("IDOL_CRASH_SEED={seed} IDOL_CRASH_ROUNDS={rounds}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (simulator, remote) = (Simulator::start().unwrap(), Simulator::start().unwrap());
    let launch = Launch::with(&simulator)
        .set("SUPABASE_URL", &remote.supabase_url())
        .set("SUPABASE_SERVICE_ROLE_KEY", SERVICE_KEY)
        .set("SUPABASE_STORAGE_BUCKET", BUCKET)
        .set("MIRROR_IDLE_SECS", "0")
        // What the bucket lacks at the end is checked after a start of its own.
        .set("SHUTDOWN_GRACE_SECS", "5")
        .set("LOG_LEVEL", "warn");
    let mut clients: Vec<Client> = (0..CLIENTS + ALONE)
        .map(|number| {
            // Two clients share a conversation, and come through different doors.
            let (conversation, asks) = match number < CLIENTS {
                true => (format!("crash-{}", number % CONVERSATIONS), Asks::Once),
                false => (format!("crash-alone-{number}"), Asks::AgainNowAndThen),
            };
            let doors = [Door::Socket, Door::Stream, Door::Whole];
            let door = doors[(number + number / CONVERSATIONS) % doors.len()];
            Client::new(number, conversation, door, asks, random.u64(..))
        })
        .collect();
    let mut seen = Seen::default();

    let mut process = launch.start().await;
    for round in 1..=rounds {
        let long = round % LONG_ROUND == 0;
        let load = match long {
            false => random.u64(50..=600),
            true => random.u64(2_600..=3_200),
        };
        let kill = async {
            // No event is awaited: that the kill comes at no particular moment is the point.
            tokio::time::sleep(Duration::from_millis(load)).await;
            let killed = Instant::now();
            process.signal("KILL");
            killed
        };
        let killed;
        (clients, killed) = talk(clients, &process, Going::OnUntilCut { slow: long }, kill).await;
        assert_eq!(process.end().await.code(), None);
        seen.count(&mut clients, killed, SEEN_BEFORE);
        process = launch.start().await;
        for (id, document) in documents(&process, &clients).await {
            check::document(&id, &document, &clients);
        }
    }

    // Every client gets its answer in the end.
    let (clients, ()) = talk(clients, &process, Going::UntilAnswered, async {}).await;
    for client in &clients {
        client.assert_answered();
    }
    let documents = documents(&process, &clients).await;
    for (id, document) in &documents {
        check::document(id, document, &clients);
    }
    process.stop().await;
    mirrors_show(&launch, &remote, &documents).await;
    seen.assert_some_of_each(rounds);
    eprintln!("{seen}");
}

/// Lets all clients talk at once, until each has come to its end; meanwhile something else is done.
async fn talk<T>(
    clients: Vec<Client>,
    process: &Process,
    going: Going,
    meanwhile: impl Future<Output = T>,
) -> (Vec<Client>, T) {
    let talking: Vec<_> = clients
        .into_iter()
        .map(|client| tokio::spawn(client.talk(process.address, going)))
        .collect();
    let done = meanwhile.await;
    let mut clients = Vec::new();
    for one in talking {
        // A client that failed has told why by its panic.
        clients.push(within("the end of a client", one).await.unwrap());
    }
    (clients, done)
}

/// The documents of all conversations that a client was told of, or that are there all the same.
async fn documents(process: &Process, clients: &[Client]) -> HashMap<String, Value> {
    let mut documents = HashMap::new();
    let ids: HashSet<_> = clients.iter().map(|it| &it.conversation).collect();
    for id in ids {
        let response = process.get(&format!("/conversation/{id}")).await;
        let told = clients
            .iter()
            .any(|it| it.conversation == *id && it.was_told());
        match response.status().as_u16() {
            200 => drop(documents.insert(id.clone(), response.json().await.unwrap())),
            404 => assert!(!told, "{id} is gone"),
            status => panic!("{id}: {status}"),
        }
    }
    documents
}

/// Every mirror shows what the log does. The place to check another mirror.
async fn mirrors_show(launch: &Launch, remote: &Simulator, documents: &HashMap<String, Value>) {
    json_files_show(launch, documents);
    bucket_shows(launch, remote, documents).await;
}

fn json_files_show(launch: &Launch, documents: &HashMap<String, Value>) {
    for (id, document) in documents {
        assert_eq!(launch.json_file(id), *document, "{id}.json");
    }
    let directory = launch.data().join("conversations");
    let names: HashSet<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected: HashSet<_> = documents.keys().map(|id| format!("{id}.json")).collect();
    assert_eq!(
        names, expected,
        "nothing was taken for edited, nothing is left over"
    );
}

/// A kill leaves uploads of which nobody knows whether they land. The next server asks once they
/// cannot land any more; this one waits less for that than one in service does.
async fn bucket_shows(launch: &Launch, remote: &Simulator, documents: &HashMap<String, Value>) {
    let setup = Setup::new().data_dir(launch.data()).supabase(remote);
    let app = setup.start().await;
    let mut states = app.supabase.clone().unwrap();
    let at_rest = states.wait_for(|it| it.caught_up && it.backlog == 0 && it.unconfirmed == 0);
    within("the bucket to show everything", at_rest)
        .await
        .unwrap();
    let supabase = remote.supabase();
    for (id, document) in documents {
        let object = supabase.object(BUCKET, &format!("{id}.json"));
        assert_eq!(mirrored(&object.unwrap().bytes), *document, "{id}");
    }
    let objects = supabase.objects(BUCKET).len();
    assert_eq!(objects, documents.len(), "nothing was taken for another's");
    app.stop().await;
}
