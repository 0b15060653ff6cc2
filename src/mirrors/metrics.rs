//! What the mirrors are at, as metrics. Read from their states when somebody asks.

use std::fmt;

use idol_actors::mirror::{json_files::MirrorState, supabase_mirror::SupabaseState};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use tokio::sync::watch;

/// The states of the mirrors.
#[derive(Debug)]
pub struct MirrorMetrics {
    /// The JSON files.
    pub json_files: watch::Receiver<MirrorState>,
    /// The copy in Supabase, if there is one.
    pub supabase: Option<watch::Receiver<SupabaseState>>,
}

/// A figure of one mirror.
struct Figure {
    mirror: &'static str,
    value: u64,
}

const JSON: &str = "json";
const SUPABASE: &str = "supabase";

impl Collector for MirrorMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let json = self.json_files.borrow().clone();
        let supabase = self.supabase.as_ref().map(|state| state.borrow().clone());
        let both = |of_json: u64, of_supabase: fn(&SupabaseState) -> u64| {
            let of_json = Some(figure(JSON, of_json));
            let of_supabase = supabase
                .as_ref()
                .map(|it| figure(SUPABASE, of_supabase(it)));
            of_json.into_iter().chain(of_supabase).collect::<Vec<_>>()
        };
        let alone = |of_supabase: fn(&SupabaseState) -> u64| {
            let of_supabase = supabase
                .as_ref()
                .map(|it| figure(SUPABASE, of_supabase(it)));
            of_supabase.into_iter().collect::<Vec<_>>()
        };
        let age = json.oldest.map_or(0, |since| since.elapsed().as_secs());
        for (name, help, figures) in [
            (
                "mirror_backlog",
                "Documents that the mirror does not show in full",
                both(json.backlog as u64, |it| it.backlog as u64),
            ),
            (
                "mirror_oldest_seconds",
                "Since when the document lacks something that does so longest",
                both(age, |it| {
                    it.oldest.map_or(0, |since| since.elapsed().as_secs())
                }),
            ),
            (
                "mirror_failing",
                "1 while nothing can be written",
                both(u64::from(json.trouble.is_some()), |it| {
                    u64::from(it.trouble.is_some())
                }),
            ),
            (
                "mirror_unconfirmed",
                "Documents whose last write has an unknown outcome",
                alone(|it| it.unconfirmed as u64),
            ),
            (
                "mirror_deletions_pending",
                "Deleted conversations whose copy is not gone for good",
                alone(|it| it.deletions as u64),
            ),
            (
                "mirror_too_large",
                "Documents refused because of their size",
                alone(|it| it.too_large as u64),
            ),
            (
                "mirror_refused_names",
                "Documents refused because of their name",
                alone(|it| it.refused_names as u64),
            ),
            (
                "mirror_rows_backlog",
                "Rows of chats that lack something",
                alone(|it| it.rows_backlog as u64),
            ),
        ] {
            encode(&mut encoder, name, help, MetricType::Gauge, &figures)?;
        }
        for (name, help, figures) in [
            (
                "mirror_writes",
                "Documents written",
                both(json.written, |it| it.uploads),
            ),
            (
                "mirror_written_bytes",
                "Bytes of documents uploaded",
                alone(|it| it.uploaded_bytes),
            ),
            (
                "mirror_conflicts",
                "Documents of another hand that were kept aside",
                both(json.set_aside, |it| it.conflicts),
            ),
        ] {
            encode(&mut encoder, name, help, MetricType::Counter, &figures)?;
        }
        Ok(())
    }
}

fn figure(mirror: &'static str, value: u64) -> Figure {
    Figure { mirror, value }
}

fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    kind: MetricType,
    figures: &[Figure],
) -> Result<(), fmt::Error> {
    if figures.is_empty() {
        return Ok(());
    }
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for Figure { mirror, value } in figures {
        let labels = [("mirror", *mirror)];
        let labelled = family.encode_family(&labels)?;
        match kind {
            MetricType::Counter => ConstCounter::new(*value).encode(labelled)?,
            _ => ConstGauge::new(i64::try_from(*value).unwrap_or(i64::MAX)).encode(labelled)?,
        }
    }
    Ok(())
}
