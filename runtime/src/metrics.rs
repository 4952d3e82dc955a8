//! Metrics of a node: counters and gauges by name, such as `master/tasks_running`.
//!
//! Values are pushed by whoever knows them and read without asking any actor; what nobody is told of when it changes, such
//! as the load of the machine, is looked up when somebody reads. The JSON snapshot keeps the names;
//! the Prometheus text turns every character outside `[A-Za-z0-9_]` into `_` and puts `meseta_` in front.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;

/// What a metric's value does over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Counter,
    Gauge,
}

struct Metric {
    shape: Shape,
    /// Bits of an `f64`.
    bits: AtomicU64,
}

/// Parts of the table with a lock each. A number of its own, since the usual one asks the system for its processors, which
/// takes longer than all that a small executor counts.
const SHARDS: usize = 8;

type Look = Arc<dyn Fn(&Metrics) + Send + Sync>;

/// All metrics of one node. Clones are the same set.
#[derive(Clone)]
pub struct Metrics {
    all: Arc<DashMap<String, Arc<Metric>>>,
    looks: Arc<Mutex<BTreeMap<&'static str, Look>>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            all: Arc::new(DashMap::with_shard_amount(SHARDS)),
            looks: Arc::default(),
        }
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Metrics({} values)", self.all.len())
    }
}

/// A counter or gauge that is updated often: holds its cell, so that an update looks nothing up.
#[derive(Clone)]
pub struct Handle(Arc<Metric>);

impl Handle {
    /// Adds to the value.
    pub fn add(&self, amount: f64) {
        let mut old = self.0.bits.load(Ordering::Relaxed);
        loop {
            let new = (f64::from_bits(old) + amount).to_bits();
            match self
                .0
                .bits
                .compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
    }

    /// Replaces the value.
    pub fn set(&self, value: f64) {
        self.0.bits.store(value.to_bits(), Ordering::Relaxed);
    }
}

impl Metrics {
    /// The counter of this name, made at zero when it is new.
    pub fn counter(&self, name: &str) -> Handle {
        self.handle(name, Shape::Counter)
    }

    /// The gauge of this name, made at zero when it is new.
    pub fn gauge(&self, name: &str) -> Handle {
        self.handle(name, Shape::Gauge)
    }

    /// Adds one to a counter.
    pub fn count(&self, name: &str) {
        self.counter(name).add(1.0);
    }

    /// Sets a gauge.
    pub fn set(&self, name: &str, value: f64) {
        self.gauge(name).set(value);
    }

    /// Makes counters at zero, so that whoever reads them finds them before they have counted anything.
    pub fn counters<N: AsRef<str>>(&self, names: impl IntoIterator<Item = N>) {
        for name in names {
            self.counter(name.as_ref());
        }
    }

    /// Makes gauges at zero.
    pub fn gauges<N: AsRef<str>>(&self, names: impl IntoIterator<Item = N>) {
        for name in names {
            self.gauge(name.as_ref());
        }
    }

    /// Has this done before all values are read, instead of what was to be done for `what` until now. It must not take
    /// long nor wait.
    pub(crate) fn before_reading(
        &self,
        what: &'static str,
        look: impl Fn(&Self) + Send + Sync + 'static,
    ) {
        self.looks.lock().insert(what, Arc::new(look));
    }

    fn handle(&self, name: &str, shape: Shape) -> Handle {
        if let Some(found) = self.all.get(name) {
            return Handle(Arc::clone(&found));
        }
        let metric = self.all.entry(name.to_owned()).or_insert_with(|| {
            Arc::new(Metric {
                shape,
                bits: AtomicU64::new(0),
            })
        });
        Handle(Arc::clone(&metric))
    }

    /// Value of a metric, if it exists.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.all
            .get(name)
            .map(|metric| f64::from_bits(metric.bits.load(Ordering::Relaxed)))
    }

    fn sorted(&self) -> Vec<(String, Shape, f64)> {
        let looks: Vec<Look> = self.looks.lock().values().cloned().collect();
        for look in looks {
            look(self);
        }
        let mut all: Vec<_> = self
            .all
            .iter()
            .map(|entry| {
                let value = f64::from_bits(entry.bits.load(Ordering::Relaxed));
                (entry.key().clone(), entry.shape, value)
            })
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// All values as one flat JSON object.
    pub fn snapshot(&self) -> serde_json::Map<String, serde_json::Value> {
        self.sorted()
            .into_iter()
            .map(|(name, _, value)| (name, serde_json::Value::from(value)))
            .collect()
    }

    /// All values in the Prometheus text format.
    pub fn prometheus(&self) -> String {
        let mut text = String::new();
        for (name, shape, value) in self.sorted() {
            let name: String = name
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
                .collect();
            let shape = match shape {
                Shape::Counter => "counter",
                Shape::Gauge => "gauge",
            };
            // Writing to a String cannot fail.
            let _infallible = writeln!(text, "# TYPE meseta_{name} {shape}\nmeseta_{name} {value}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_was_pushed_in_both_formats() {
        let metrics = Metrics::default();
        metrics.count("master/tasks_finished");
        metrics.count("master/tasks_finished");
        metrics.set("master/uptime_secs", 1.5);
        assert_eq!(metrics.snapshot()["master/tasks_finished"], 2.0);
        assert_eq!(
            metrics.prometheus(),
            "# TYPE meseta_master_tasks_finished counter\nmeseta_master_tasks_finished 2\n\
             # TYPE meseta_master_uptime_secs gauge\nmeseta_master_uptime_secs 1.5\n"
        );
    }

    #[test]
    fn what_is_made_is_zero_and_what_is_looked_up_is_new_at_each_reading() {
        let metrics = Metrics::default();
        metrics.counters(["a/lost", "a/found"]);
        metrics.count("a/found");
        metrics.counters(["a/found"]);
        metrics.before_reading("a", |metrics| metrics.count("a/lost"));
        metrics.before_reading("a", |metrics| metrics.count("a/read"));
        let all = metrics.clone().snapshot();
        assert_eq!(
            (&all["a/lost"], &all["a/found"], &all["a/read"]),
            (&0.0.into(), &1.0.into(), &1.0.into())
        );
        assert_eq!(metrics.snapshot()["a/read"], 2.0);
    }
}
