//! The tasks of a process, watched: none of them ends before the process is told to.
//!
//! A task that panics ends the process by itself; one that returned would leave the others going on without it, and who looks from outside would
//! take the process for whole.

use std::{
    future::Future,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Tasks that run until `stop`.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    ended: Arc<Mutex<Option<&'static str>>>,
}

impl Deref for Tasks {
    type Target = TaskTracker;

    fn deref(&self) -> &TaskTracker {
        &self.tracker
    }
}

impl Tasks {
    /// No task yet.
    pub fn until(stop: &CancellationToken) -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop: stop.clone(),
            ended: Arc::default(),
        }
    }

    /// Starts one that ends with `stop` and not before.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, ended) = (self.stop.clone(), Arc::clone(&self.ended));
        self.tracker.spawn(async move {
            task.await;
            if !stop.is_cancelled() {
                let name = std::any::type_name::<F>().trim_end_matches("::{{closure}}");
                tracing::error!(task = name, "a task ended that should go on: this is a defect");
                *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(name);
            }
        });
    }

    /// Whether all of them go on.
    ///
    /// # Errors
    /// One that does not.
    pub fn alive(&self) -> Result<(), String> {
        match *self.ended.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(name) => Err(format!("the task {name} has ended")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn forever(stop: CancellationToken) {
        stop.cancelled().await;
    }

    async fn at_once() {}

    #[tokio::test]
    async fn a_task_that_ends_before_it_is_told_to_is_named_and_others_are_not() {
        let stop = CancellationToken::new();
        let tasks = Tasks::until(&stop);
        tasks.spawn(forever(stop.clone()));
        assert_eq!(tasks.alive(), Ok(()));
        let failing = Tasks::until(&stop);
        failing.spawn(at_once());
        failing.close();
        failing.wait().await;
        assert!(failing.alive().unwrap_err().contains("at_once"), "{failing:?}");
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        assert_eq!(tasks.alive(), Ok(()));
    }
}
