//! What an agent may take while nothing happens. Pure.

/// Memory of the agent's process, MiB, as RSS.
pub(super) const MEMORY_MIB: f64 = 64.0;
/// Of one core, percent.
pub(super) const CPU_PERCENT: f64 = 3.0;
/// Requests to the Kubernetes API a minute for each application: seven watches of its namespace begin anew every few minutes, a status is written at
/// most six times, and what was carried is compared now and then; all of that may fall into one minute.
pub(super) const REQUESTS: f64 = 25.0;

/// What one agent took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    /// RSS, MiB.
    pub(super) memory: f64,
    /// Percent of a core.
    pub(super) cpu: f64,
    /// Requests to the Kubernetes API a minute.
    pub(super) requests: f64,
}

/// What is over its limit.
pub(super) fn missed(region: &str, apps: usize, taken: Taken) -> Vec<String> {
    let limits = [
        (taken.memory, MEMORY_MIB, "MiB (RSS)"),
        (taken.cpu, CPU_PERCENT, "% of a core"),
        (
            taken.requests,
            REQUESTS * apps as f64,
            "requests to the Kubernetes API a minute",
        ),
    ];
    let over = limits.into_iter().filter(|(ours, limit, _)| ours >= limit);
    over.map(|(ours, limit, what)| format!("{region}: {ours:.1} {what} at rest, and {limit} are allowed"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_counts() {
        let taken = Taken {
            memory: 63.9,
            cpu: 2.9,
            requests: 249.0,
        };
        assert_eq!(missed("west", 10, taken), Vec::<String>::new());
        for (over, what) in [
            (Taken { memory: 64.0, ..taken }, "64.0 MiB"),
            (Taken { cpu: 3.1, ..taken }, "3.1 % of a core"),
            (
                Taken {
                    requests: 250.0,
                    ..taken
                },
                "250.0 requests",
            ),
        ] {
            let missed = missed("west", 10, over);
            assert_eq!(missed.len(), 1);
            assert!(missed[0].contains(what), "{missed:?}");
        }
        assert_eq!(
            missed("west", 9, taken).len(),
            1,
            "the bound grows with the applications"
        );
    }
}
