//! How a pod's template says that its writer is to run behind its gate: annotations of the template, so that whoever brings the gate in
//! (`leeward inject`, or the webhook) does the same, and what is written down stays what a person wrote.

/// What every annotation of these begins with; one that is none of them is an error, as it is a misspelt one.
pub const PREFIX: &str = "leeward.dev/gate-";

/// The name of the `ProtectedApp`, which is in the same namespace.
pub const APP: &str = "leeward.dev/gate-app";

/// The names of the roles that the writer writes in, with commas between them.
pub const ROLES: &str = "leeward.dev/gate-roles";

/// The ports that users reach the writer at, `[http|tcp:]PORT=WRITER` with commas between them: the port of the pod's address, and the port of
/// 127.0.0.1 that the writer listens on.
pub const PORTS: &str = "leeward.dev/gate-ports";

/// The name of the writer's container; not needed where the pod has one.
pub const CONTAINER: &str = "leeward.dev/gate-container";

/// The numbers of ports and the names of containers that the gate does not hold and that need not be held, with commas between them.
pub const AROUND: &str = "leeward.dev/gate-around";

/// All annotations.
pub const ANNOTATIONS: [&str; 5] = [APP, ROLES, PORTS, CONTAINER, AROUND];

/// The label of a namespace whose pods the webhook looks at, where its value is [`ENABLED`]; and of a pod that it does not look at, where its
/// value is [`DISABLED`].
pub const INJECT_LABEL: &str = "leeward.dev/inject";
/// See [`INJECT_LABEL`].
pub const ENABLED: &str = "enabled";
/// See [`INJECT_LABEL`].
pub const DISABLED: &str = "disabled";
