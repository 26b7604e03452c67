//! What befalls an instance on purpose: regions and processes that are killed, that stand still, and that go on.

use super::{Error, Instance, processes::Record, stopping};

impl Instance {
    /// Kills every process of a region at once, as the loss of the region would.
    pub fn kill_region(&self, region: &str) -> Result<(), Error> {
        self.kill(&self.of_region(region)?)
    }

    /// Kills one process and what it started; `name` is that of [`Instance::processes`].
    pub fn kill_process(&self, name: &str) -> Result<(), Error> {
        self.kill(&self.named(name)?)
    }

    /// Stops every process of a region where it stands, its applications' included, as a machine that hangs would.
    pub fn freeze_region(&self, region: &str) -> Result<(), Error> {
        stopping::signal(&self.of_region(region)?, libc::SIGSTOP);
        Ok(())
    }

    /// Stops one process where it stands, with what it started; `name` is that of [`Instance::processes`].
    pub fn freeze_process(&self, name: &str) -> Result<(), Error> {
        stopping::signal(&self.named(name)?, libc::SIGSTOP);
        Ok(())
    }

    /// Lets a frozen region go on.
    pub fn thaw_region(&self, region: &str) -> Result<(), Error> {
        stopping::signal(&self.of_region(region)?, libc::SIGCONT);
        Ok(())
    }

    /// Lets everything that was frozen go on, the witness included.
    pub fn thaw_all(&self) -> Result<(), Error> {
        stopping::signal(&self.processes()?, libc::SIGCONT);
        Ok(())
    }

    fn of_region(&self, region: &str) -> Result<Vec<Record>, Error> {
        self.addresses(region)?;
        let mut records = self.processes()?;
        records.retain(|record| record.region.as_deref() == Some(region));
        Ok(records)
    }

    fn named(&self, name: &str) -> Result<Vec<Record>, Error> {
        let mut records = self.processes()?;
        records.retain(|record| record.name == name);
        match records.is_empty() {
            true => Err(Error::UnknownProcess(name.to_owned())),
            false => Ok(records),
        }
    }

    fn kill(&self, records: &[Record]) -> Result<(), Error> {
        let killed = stopping::kill(records);
        self.children().reap();
        killed
    }
}
