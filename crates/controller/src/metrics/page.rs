//! Writes metrics as the table names them.

use std::fmt;

use leeward_api::metrics::{Kind, Metric, Unit};
use leeward_traffic::Histogram;
use prometheus_client::{
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
    registry,
};

/// A page that is being written.
pub(super) struct Page<'a>(pub(super) DescriptorEncoder<'a>);

/// One family of a page.
pub(super) struct Family<'a> {
    metric: &'static Metric,
    encoder: MetricEncoder<'a>,
}

impl Page<'_> {
    /// Writes a family; `fill` gives its values. It is on the page also without any.
    pub(super) fn family(
        &mut self,
        metric: &'static Metric,
        fill: impl FnOnce(&mut Family<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let unit = metric.unit.map(|unit| match unit {
            Unit::Seconds => registry::Unit::Seconds,
            Unit::Bytes => registry::Unit::Bytes,
        });
        // The unit is appended where the name is written.
        let name = metric.unit.map_or(metric.family, |unit| {
            let bare = metric.family.strip_suffix(unit.as_str());
            bare.map_or(metric.family, |bare| bare.trim_end_matches('_'))
        });
        let kind = match metric.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
            Kind::Info => MetricType::Info,
        };
        let encoder = self.0.encode_descriptor(name, metric.meaning, unit.as_ref(), kind)?;
        fill(&mut Family { metric, encoder })
    }

    /// Writes a family that has one value.
    pub(super) fn gauge(&mut self, metric: &'static Metric, value: impl Into<Option<f64>>) -> fmt::Result {
        let value = value.into();
        self.family(metric, |family| value.map_or(Ok(()), |value| family.gauge(&[], value)))
    }

    /// Writes a family that has one count.
    pub(super) fn counter(&mut self, metric: &'static Metric, value: u64) -> fmt::Result {
        self.family(metric, |family| family.counter(&[], value))
    }

    /// Writes a family that has one histogram.
    pub(super) fn histogram(&mut self, metric: &'static Metric, value: &Histogram) -> fmt::Result {
        self.family(metric, |family| family.histogram(&[], value))
    }
}

impl Family<'_> {
    /// The labels with their names. Two lists of different lengths are a defect, which the comparison of a page with the table shows.
    fn labels<'v>(&self, values: &[&'v str]) -> Vec<(&'static str, &'v str)> {
        self.metric.labels.iter().copied().zip(values.iter().copied()).collect()
    }

    pub(super) fn gauge(&mut self, labels: &[&str], value: f64) -> fmt::Result {
        let labels = self.labels(labels);
        self.encoder.encode_family(&labels)?.encode_gauge(&value)
    }

    pub(super) fn flag(&mut self, labels: &[&str], value: bool) -> fmt::Result {
        self.gauge(labels, f64::from(u8::from(value)))
    }

    pub(super) fn counter(&mut self, labels: &[&str], value: u64) -> fmt::Result {
        let labels = self.labels(labels);
        let mut encoder = self.encoder.encode_family(&labels)?;
        encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    pub(super) fn counter_f64(&mut self, labels: &[&str], value: f64) -> fmt::Result {
        let labels = self.labels(labels);
        let mut encoder = self.encoder.encode_family(&labels)?;
        encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    pub(super) fn histogram(&mut self, labels: &[&str], value: &Histogram) -> fmt::Result {
        let labels = self.labels(labels);
        let ranges = value.ranges();
        let count = ranges.iter().map(|(_, count)| count).sum();
        let mut encoder = self.encoder.encode_family(&labels)?;
        encoder.encode_histogram::<NoLabelSet>(value.sum(), count, &ranges, None)
    }

    pub(super) fn info(&mut self, values: &[&str]) -> fmt::Result {
        let labels = self.labels(values);
        self.encoder.encode_info(&labels)
    }
}
