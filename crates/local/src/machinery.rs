//! What an API server decides about objects: kinds, patches, ownership of fields, schemas, defaults, tables. Pure.

pub mod kinds;
