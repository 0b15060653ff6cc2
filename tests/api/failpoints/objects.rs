//! Deaths while the copy in Supabase is written.

use idol_simulator::{
    Simulator,
    supabase::{Error, Fault, Target},
};

use super::{ID, Mortal, Place, death};
use crate::{
    helpers::{BUCKET, SERVICE_KEY, Setup, TestApp, client, until, within},
    process::Launch,
    supabase::{same_as_file, state, stored},
};

fn remote() -> Simulator {
    let remote = Simulator::start().unwrap();
    remote.require_service_key(Some(SERVICE_KEY));
    remote
}

fn mortal(remote: &Simulator) -> Mortal {
    let launch = Launch::with(remote)
        .set("SUPABASE_URL", &remote.supabase_url())
        .set("SUPABASE_SERVICE_ROLE_KEY", SERVICE_KEY)
        .set("SUPABASE_STORAGE_BUCKET", BUCKET)
        .set("MIRROR_IDLE_SECS", "0");
    Mortal::new(launch)
}

/// A server on the same directory that waits for nothing as long as an ordinary one does.
async fn next(mortal: &Mortal, remote: &Simulator) -> TestApp {
    let setup = Setup::new().data_dir(mortal.launch.data()).supabase(remote);
    setup.start().await
}

fn keys(remote: &Simulator) -> Vec<String> {
    let objects = remote.supabase().objects(BUCKET);
    objects.into_iter().map(|object| object.key).collect()
}

#[tokio::test]
async fn a_document_whose_upload_a_death_cut_is_uploaded_by_the_next_start() {
    for (point, there) in [
        ("BeforeUpload", false),
        ("UploadBegun", false),
        ("Uploaded", true),
    ] {
        let remote = remote();
        let mut mortal = mortal(&remote);
        let mut process = mortal.start_to_die_at(Place::Mirror(point)).await;
        // Whether this is answered before the death is chance; what is in the log is not.
        let said = process.http.post(process.url("/chat"));
        let body = crate::helpers::say(ID, "hello");
        drop(within("the answer, or its end", said.json(&body).send()).await);
        death(&mut process).await;
        assert_eq!(stored(&remote, ID).is_some(), there, "{point}");

        let app = next(&mortal, &remote).await;

        app.chat(ID, "and again").await;
        let messages = app.document(ID).await["messages"].as_array().unwrap().len();
        same_as_file(&app, &remote, ID, messages).await;
        app.stop().await;
        assert_eq!(
            keys(&remote),
            [format!("{ID}.json")],
            "nothing of ours was kept aside"
        );
    }
}

#[tokio::test]
async fn a_removal_for_an_id_that_lives_anew_is_finished_and_spares_the_new_life() {
    // Behind the removal, and over the first upload of what came after it.
    for place in ["Removed", "BeforeUpload", "UploadBegun", "Uploaded"] {
        let remote = remote();
        let mut mortal = mortal(&remote);
        let process = mortal.start().await;
        process.chat(ID, "a secret").await;
        until("the object", async || stored(&remote, ID)).await;
        process.stop().await;
        // What was kept aside is of the first life, too.
        let old = stored(&remote, ID).unwrap().bytes;
        let aside = format!("{ID}.conflict-2025-01-01T000000.000000Z.json");
        remote.supabase().put_object(BUCKET, &aside, old);
        let mut process = mortal.start_to_die_at(Place::Mirror(place)).await;
        process.http = client();
        // Supabase takes nothing until the id lives anew.
        let outage = remote
            .supabase()
            .fail(Target::All, Fault::Error(Error::SlowDown));
        let url = process.url(&format!("/conversation/{ID}"));
        let deleted = within("the deletion", process.http.delete(url).send()).await;
        assert_eq!(deleted.unwrap().status(), 204);
        process.chat(ID, "anew").await;
        outage.clear();
        death(&mut process).await;

        let app = next(&mortal, &remote).await;

        state(&app, "the removal", |state| {
            state.caught_up && state.deletions == 0 && state.backlog == 0
        })
        .await;
        let document = same_as_file(&app, &remote, ID, 2).await;
        assert_eq!(document["messages"][0]["content"], "anew", "{place}");
        assert_eq!(keys(&remote), [format!("{ID}.json")], "{place}");
        app.stop().await;
    }
}

#[tokio::test]
async fn a_removal_that_a_death_cut_is_finished_by_the_next_start() {
    let remote = remote();
    let mut mortal = mortal(&remote);
    let process = mortal.start().await;
    process.chat(ID, "a secret").await;
    until("the object", async || stored(&remote, ID)).await;
    process.stop().await;
    let mut process = mortal.start_to_die_at(Place::Mirror("Removed")).await;
    process.http = client();
    let deletion = process
        .http
        .delete(process.url(&format!("/conversation/{ID}")));
    drop(within("the deletion, or its end", deletion.send()).await);
    death(&mut process).await;
    assert!(stored(&remote, ID).is_none());
    // What came back meanwhile goes, too.
    remote.supabase().put_object(BUCKET, "c1.json", &b"{}"[..]);

    let app = next(&mortal, &remote).await;

    state(&app, "the removal", |state| {
        state.caught_up && state.deletions == 0 && state.backlog == 0
    })
    .await;
    assert_eq!(keys(&remote), [""; 0]);
    assert_eq!(app.get(&format!("/conversation/{ID}")).await.status(), 404);
}
