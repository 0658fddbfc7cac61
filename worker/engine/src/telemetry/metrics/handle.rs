//! Handles to metrics: how they are made, and the macros that declare them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{
    Counter, Gauge, Histogram, Label, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

/// The label value that all further values share.
const OTHER: &str = "other";

/// A label and its value.
pub(crate) type Own<'a> = (&'static str, &'a str);

/// Makes handles. Where a process serves several databases, each series names its database.
#[derive(Debug, Clone, Default)]
pub struct Series {
    database: Option<Label>,
}

impl Series {
    /// The series of one of several databases.
    pub fn of(database: &str) -> Series {
        Series { database: Some(Label::new("database", database.to_owned())) }
    }

    fn labels(&self, own: &[Own]) -> Vec<Label> {
        let own = own.iter().map(|(label, value)| Label::new(*label, (*value).to_owned()));
        self.database.iter().cloned().chain(own).collect()
    }
}

/// A metric with all the handles that its labels need.
pub(crate) trait Handle {
    /// `counter`, `gauge` or `histogram`.
    const KIND: &'static str;

    fn new(series: &Series, name: &'static str, own: &[Own]) -> Self;

    /// Sets gauges to 0. Counters and histograms only grow.
    fn clear(&self) {}
}

impl Handle for Counter {
    const KIND: &'static str = "counter";

    /// The counter is touched with 0, so that its series exists before the first event.
    fn new(series: &Series, name: &'static str, own: &[Own]) -> Counter {
        let counter = counter!(name, series.labels(own));
        counter.absolute(0);
        counter
    }
}

impl Handle for Gauge {
    const KIND: &'static str = "gauge";

    fn new(series: &Series, name: &'static str, own: &[Own]) -> Gauge {
        gauge!(name, series.labels(own))
    }

    fn clear(&self) {
        self.set(0.0);
    }
}

impl Handle for Histogram {
    const KIND: &'static str = "histogram";

    fn new(series: &Series, name: &'static str, own: &[Own]) -> Histogram {
        histogram!(name, series.labels(own))
    }
}

/// Metrics that are made together.
pub(crate) trait MetricSet {
    /// Name, kind and help of each metric.
    const TABLE: &'static [(&'static str, &'static str, &'static str)];

    fn of(series: &Series, own: &[Own]) -> Self;

    /// Sets every gauge to 0.
    fn clear(&self);
}

/// Tells the exporter what a metric means.
pub(super) fn describe((name, kind, help): (&'static str, &str, &'static str)) {
    match kind {
        "counter" => describe_counter!(name, help),
        "gauge" => describe_gauge!(name, help),
        _ => describe_histogram!(name, help),
    }
}

/// Declares a set of metrics: a struct with a handle a metric, and the table of their names, kinds
/// and help texts.
macro_rules! metrics {
    (
        $(#[$doc:meta])* $vis:vis struct $Name:ident {
            $($field:ident: $Type:ty = $metric:literal, $help:literal;)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        $vis struct $Name { $(#[doc = $help] pub(crate) $field: $Type,)* }

        impl $crate::telemetry::metrics::handle::MetricSet for $Name {
            const TABLE: &'static [(&'static str, &'static str, &'static str)] = &[
                $(($metric, <$Type as $crate::telemetry::metrics::handle::Handle>::KIND, $help),)*
            ];

            fn of(
                series: &$crate::telemetry::metrics::handle::Series,
                own: &[$crate::telemetry::metrics::handle::Own],
            ) -> $Name {
                $Name {
                    $($field: $crate::telemetry::metrics::handle::Handle::new(series, $metric, own),)*
                }
            }

            fn clear(&self) {
                $($crate::telemetry::metrics::handle::Handle::clear(&self.$field);)*
            }
        }
    };
}

/// Declares a metric with a label: a struct with a handle for each of the label's values.
macro_rules! by_label {
    ($(#[$doc:meta])* struct $Name:ident($Type:ty) by $label:literal { $($field:ident: $value:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub(crate) struct $Name { $(pub(crate) $field: $Type,)* }

        impl $crate::telemetry::metrics::handle::Handle for $Name {
            const KIND: &'static str = <$Type as $crate::telemetry::metrics::handle::Handle>::KIND;

            fn new(
                series: &$crate::telemetry::metrics::handle::Series,
                name: &'static str,
                own: &[$crate::telemetry::metrics::handle::Own],
            ) -> $Name {
                $Name {
                    $($field: {
                        let labels = [own, &[($label, $value)]].concat();
                        $crate::telemetry::metrics::handle::Handle::new(series, name, &labels)
                    },)*
                }
            }

            fn clear(&self) {
                $($crate::telemetry::metrics::handle::Handle::clear(&self.$field);)*
            }
        }
    };
}

/// Handles by a label's value, at most `max` of them. All further values share one: whoever calls
/// a host of its own for each saga must not fill Prometheus.
#[derive(Debug)]
pub(super) struct ByName<T> {
    known: Mutex<HashMap<String, T>>,
    max: usize,
    make: fn(&Series, &str) -> T,
    series: Series,
}

impl<T: Clone> ByName<T> {
    pub(super) fn new(max: usize, series: &Series, make: fn(&Series, &str) -> T) -> Arc<ByName<T>> {
        Arc::new(ByName { known: Mutex::default(), max, make, series: series.clone() })
    }

    pub(super) fn get(&self, name: &str) -> T {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handles) = known.get(name) {
            return handles.clone();
        }
        let name = if known.len() < self.max { name } else { OTHER };
        known.entry(name.to_owned()).or_insert_with(|| (self.make)(&self.series, name)).clone()
    }

    pub(super) fn all(&self) -> Vec<T> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
