//! What tests have told the simulated OpenRouter, and how often it has failed so far.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Route;
use super::models::{self, ModelCard};
use super::script::Script;

/// The most model names whose requests are counted; past it the counts start anew.
const COUNTED_MODELS: usize = 65_536;

/// The scripts, models and key of the simulated OpenRouter.
#[derive(Debug)]
pub(crate) struct OpenRouter {
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    queues: HashMap<Route, VecDeque<Queued>>,
    defaults: HashMap<Route, Queued>,
    plain: Arc<Script>,
    /// Requests so far by model name, for scripts that fail only some.
    requests: HashMap<String, u64>,
    models: Vec<ModelCard>,
    key: Option<String>,
}

/// A script and the requests that it has answered.
#[derive(Debug, Default)]
struct Queued {
    script: Arc<Script>,
    played: u64,
}

impl Queued {
    fn new(script: Script) -> Self {
        Self {
            script: Arc::new(script),
            played: 0,
        }
    }

    /// Returns the script and whether it fails this time.
    fn play(&mut self) -> (Arc<Script>, bool) {
        let fails = self.script.fails(self.played);
        self.played += 1;
        (Arc::clone(&self.script), fails)
    }

    /// A script that fails so many times stays in the queue for one success more.
    fn is_over(&self) -> bool {
        self.played > self.script.faults.fail.unwrap_or(0)
    }
}

impl OpenRouter {
    pub(crate) fn new(key: Option<String>) -> Self {
        Self {
            told: Mutex::new(Told {
                key,
                ..Told::default()
            }),
        }
    }

    pub(crate) fn queue(&self, route: Route, script: Script) {
        self.lock()
            .queues
            .entry(route)
            .or_default()
            .push_back(Queued::new(script));
    }

    pub(crate) fn queued(&self) -> usize {
        self.lock().queues.values().map(VecDeque::len).sum()
    }

    pub(crate) fn set_default(&self, route: Route, script: Script) {
        self.lock().defaults.insert(route, Queued::new(script));
    }

    pub(crate) fn add_model(&self, card: ModelCard) {
        let models = &mut self.lock().models;
        models.retain(|known| known.id != card.id);
        models.push(card);
    }

    pub(crate) fn models(&self) -> String {
        models::list(&self.lock().models)
    }

    pub(crate) fn require_key(&self, key: Option<String>) {
        self.lock().key = key;
    }

    /// Whether a request with this authorization may pass.
    pub(crate) fn admits(&self, authorization: Option<&str>) -> bool {
        let told = self.lock();
        let given = authorization.and_then(|value| value.strip_prefix("Bearer "));
        told.key.is_none() || told.key.as_deref() == given
    }

    /// Returns how much of an upload is to be read before what is queued for a route, or else its
    /// default, begins to answer; none when all of it is.
    pub(crate) fn upload(&self, route: Route) -> Option<usize> {
        let told = self.lock();
        let queued = told.queues.get(&route).and_then(VecDeque::front);
        let script = queued.or_else(|| told.defaults.get(&route));
        script.and_then(|queued| queued.script.upload)
    }

    /// Chooses what a request does, and whether the script's faults meet it.
    pub(crate) fn choose(&self, route: Route, model: Option<&str>) -> (Arc<Script>, bool) {
        let mut told = self.lock();
        if let Some(queue) = told.queues.get_mut(&route)
            && let Some(first) = queue.front_mut()
        {
            let chosen = first.play();
            if first.is_over() {
                queue.pop_front();
            }
            return chosen;
        }
        if let Some((model, script)) =
            model.and_then(|model| Some((model, Script::of_model(model)?)))
        {
            let ordinal = if script.counts() {
                told.count(model)
            } else {
                0
            };
            let fails = script.fails(ordinal);
            return (Arc::new(script), fails);
        }
        match told.defaults.get_mut(&route) {
            Some(default) => default.play(),
            None => (Arc::clone(&told.plain), true),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    /// Counts a request for a model, and returns how many came before it.
    fn count(&mut self, model: &str) -> u64 {
        if self.requests.len() >= COUNTED_MODELS && !self.requests.contains_key(model) {
            self.requests.clear();
        }
        let count = self.requests.entry(model.to_owned()).or_default();
        *count += 1;
        *count - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(router: &OpenRouter, model: &str) -> bool {
        router.choose(Route::Chat, Some(model)).1
    }

    #[test]
    fn a_queued_script_comes_before_the_model_and_the_default() {
        let router = OpenRouter::new(None);
        router.set_default(Route::Chat, "seed=1".into());
        router.queue(Route::Chat, "seed=2".into());
        let mut seeds = Vec::new();
        for model in ["sim/seed=3", "sim/seed=3", "example/model-1"] {
            seeds.push(router.choose(Route::Chat, Some(model)).0.reply.seed);
        }
        assert_eq!(seeds, [2, 3, 1]);
    }

    #[test]
    fn a_queued_failure_is_followed_by_one_success() {
        let router = OpenRouter::new(None);
        router.queue(Route::Chat, "fault=reset,fail=2,seed=9".into());
        assert_eq!([0; 3].map(|_| fails(&router, "m")), [true, true, false]);
        assert_eq!(router.queued(), 0);
        assert_eq!(router.choose(Route::Chat, Some("m")).0.reply.seed, 0);
    }

    #[test]
    fn models_fail_apart() {
        let router = OpenRouter::new(None);
        let first = "sim/fault=reset,fail=1,key=a";
        assert!(fails(&router, first));
        assert!(!fails(&router, first));
        assert!(fails(&router, "sim/fault=reset,fail=1,key=b"));
    }

    #[test]
    fn a_key_is_compared_whole() {
        let router = OpenRouter::new(Some("k".into()));
        assert!(router.admits(Some("Bearer k")));
        assert!(!router.admits(Some("Bearer kk")));
        assert!(!router.admits(None));
    }
}
