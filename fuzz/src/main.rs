//! The fuzz target: requests of arbitrary bytes to the local API in this process.
//!
//! It builds with the stable toolchain; `rustc-covered` beside it marks the API's own code for libFuzzer:
//!
//! ```sh
//! cd fuzz && RUSTC_WRAPPER=$PWD/rustc-covered cargo build
//! mkdir -p corpus && target/debug/leeward-fuzz corpus -max_len=256 -max_total_time=300
//! ```

#![no_main]
#![allow(clippy::expect_used, reason = "a finding is a panic")]

use std::sync::LazyLock;

use leeward_local::apiserver::Server;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../crates/local/tests/local/hostile.rs"]
mod hostile;

struct Api {
    runtime: Runtime,
    server: Server,
    kept: serde_json::Value,
    _directory: tempfile::TempDir,
}

static API: LazyLock<Api> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let server = runtime.block_on(hostile::open(directory.path()));
    let kept = runtime.block_on(hostile::keep(&server));
    Api {
        runtime,
        server,
        kept,
        _directory: directory,
    }
});

fuzz_target!(|data: &[u8]| {
    let api = &*API;
    api.runtime.block_on(async {
        hostile::send(&api.server, data).await;
        if data.first().is_some_and(|byte| byte % 64 == 0) {
            hostile::check(&api.server, &api.kept).await;
        }
    });
});
