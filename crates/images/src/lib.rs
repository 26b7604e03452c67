//! Container images in every region: registry gateway, replication and the inventory of verified digests.
