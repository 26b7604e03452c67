//! Container images in every region: registry gateway, replication and the inventory of verified digests.
//!
//! Each region has a [`store::Store`] (a directory) and two faces of it ([`registry::router`]): one to read and push for
//! the region's nodes and users, one to read for the other regions. [`replicate::Replicator`] copies what is pushed in one
//! region to the others; [`inventory::Inventory`] answers, often and cheaply, whether every byte of the images that an
//! application runs is in this region and was re-hashed here. [`pack`] makes an image of files.
//!
//! ```no_run
//! # async fn wire(dir: &std::path::Path, peers: Vec<leeward_images::peers::Peer>) -> Result<(), Box<dyn std::error::Error>> {
//! # use leeward_images::{inventory::Inventory, peers::Peers, registry::{self, Mode}, replicate::Replicator, store::Store};
//! let store = Store::open(dir)?;
//! let peers = Peers::new(peers);
//! let for_nodes = registry::router(store.clone(), Mode::ReadWrite, peers.clone());
//! let for_regions = registry::router(store.clone(), Mode::ReadOnly, peers.clone());
//! let copying = tokio::spawn(Replicator::new(store.clone(), peers).run());
//! let images = Inventory::new(store).check(&["sample:1"]);
//! # Ok(()) }
//! ```

pub mod digest;
pub mod entry;
pub mod inventory;
pub mod manifest;
pub mod pack;
pub mod peers;
pub mod reference;
pub mod registry;
pub mod replicate;
pub mod store;
