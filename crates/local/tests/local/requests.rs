//! The API under requests of arbitrary bytes; the longer search is the fuzz target in `fuzz/`.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::hostile;

/// Requests of one run, which is the same every time.
const REQUESTS: u32 = 2000;

#[test]
fn no_request_harms_the_api_or_what_is_stored() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let server = runtime.block_on(hostile::open(directory.path()));
    let kept = runtime.block_on(hostile::keep(&server));
    let config = Config {
        cases: REQUESTS,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let bytes = proptest::collection::vec(any::<u8>(), 0..64);
    let made = Cell::new(0);
    let done = runner.run(&bytes, |data| {
        let status = runtime.block_on(hostile::send(&server, &data));
        made.set(made.get() + u32::from(status == 201));
        Ok(())
    });
    done.unwrap();
    runtime.block_on(hostile::check(&server, &kept));
    assert!(made.get() >= 5, "only {} requests made something", made.get());
}
