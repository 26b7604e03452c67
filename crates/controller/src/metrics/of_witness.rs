//! What there is to say of a witness.

use std::{collections::BTreeMap, fmt, sync::PoisonError};

use leeward_api::metrics as table;
use leeward_core::{lease::Moment, name::ClusterName};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use super::{Observed, page::Page, process, text_of};
use crate::{clock, witness::Heard};

/// A witness, looked at from outside.
pub struct Observer(pub Heard);

impl Observed for Observer {
    fn metrics(&self) -> Result<String, fmt::Error> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        text_of(Read(heard))
    }

    /// It has one task, and the process ends with it.
    fn alive(&self) -> Result<(), String> {
        Ok(())
    }

    /// Its listeners are bound before this is asked, and it asks nobody.
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

#[derive(Debug)]
struct Read(BTreeMap<ClusterName, Moment>);

impl Collector for Read {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (mut page, now) = (Page(encoder), clock::now());
        page.family(&table::WITNESS_HEARD, |family| {
            let mut heard = self.0.iter();
            heard.try_for_each(|(cluster, at)| family.gauge(&[cluster.as_str()], now.since(*at).as_secs_f64()))
        })?;
        process::write(&mut page)
    }
}
