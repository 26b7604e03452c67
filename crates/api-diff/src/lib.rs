//! Holds a local region to real Kubernetes: the same requests to both, and every difference in the answers.
//!
//! The flow: [`case`] files -> [`play`] on each side -> [`normal`] answers -> [`difference`]s, less the accepted ones. What a
//! real server answered is [`recorded`] beside the cases, and the tests hold a local region to it where there is no real
//! one. A [`manifest`] of a real application is applied to both sides and read back.

pub mod case;
pub mod difference;
pub mod manifest;
pub mod normal;
pub mod play;
pub mod recorded;
pub mod session;
pub mod target;

use anyhow::Result;

use case::Case;
use play::Answer;

/// Plays a case against one server, and names what is random in the answers.
///
/// # Errors
/// The server cannot be spoken to, or what a step waits for does not come.
pub async fn answers(client: &kube::Client, case: &Case, words: &Words) -> Result<Vec<Answer>> {
    let mut normal = normal::Normal::new()?;
    let answers = play::play(client, case, &words.namespace, &words.id).await?;
    let mut named = Vec::new();
    for (step, answer) in case.steps.iter().zip(&answers) {
        let mut answer = if step.aside {
            normal::Normal::new()?.answer(answer)
        } else {
            normal.answer(answer)
        };
        words.hide(&mut answer);
        named.push(answer);
    }
    Ok(named)
}

/// The names that a case uses in one run.
#[derive(Clone, Debug)]
pub struct Words {
    namespace: String,
    id: String,
}

impl Words {
    /// Names that nothing else has. Of the same length in every run, as lengths show in messages.
    #[must_use]
    pub fn new() -> Self {
        let random: u32 = rand::random();
        Self {
            namespace: format!("case-{random:08x}"),
            id: format!("word{:08x}", random.rotate_left(13) ^ 0x5a5a_1234),
        }
    }

    /// Puts `{ns}` and `{id}` back in their places.
    fn hide(&self, answer: &mut Answer) {
        let hidden = |text: &str| text.replace(&self.namespace, "{ns}").replace(&self.id, "{id}");
        for warning in &mut answer.warnings {
            *warning = hidden(warning);
        }
        hide(&mut answer.body, &hidden);
    }
}

impl Default for Words {
    fn default() -> Self {
        Self::new()
    }
}

fn hide(value: &mut serde_json::Value, hidden: &impl Fn(&str) -> String) {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            *map = std::mem::take(map)
                .into_iter()
                .map(|(key, mut child)| {
                    hide(&mut child, hidden);
                    (hidden(&key), child)
                })
                .collect();
        }
        Value::Array(items) => items.iter_mut().for_each(|item| hide(item, hidden)),
        Value::String(text) => *text = hidden(text),
        _ => {}
    }
}
