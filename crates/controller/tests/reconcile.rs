//! What an agent does through the Kubernetes API, on a local region's and on a real one: two whole agents and a witness in this
//! process, the agents with no more rights than they need.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot set its stage may panic"
)]

#[path = "reconcile/application.rs"]
mod application;
#[path = "reconcile/capacity.rs"]
mod capacity;
#[path = "reconcile/data.rs"]
mod data;
#[path = "reconcile/gate.rs"]
mod gate;
#[path = "reconcile/metrics.rs"]
mod metrics;
#[path = "reconcile/operations.rs"]
mod operations;
#[path = "reconcile/replicas.rs"]
mod replicas;
#[path = "reconcile/resource.rs"]
mod resource;
#[path = "reconcile/stage.rs"]
mod stage;

use application::*;
use capacity::*;
use data::*;
use gate::*;
use metrics::*;
use operations::*;
use replicas::*;
use resource::*;

leeward_testing::scenarios! {
    a_resource_is_accepted_and_its_status_says_of_which_generation_it_is,
    nothing_is_written_again_while_nothing_changes,
    what_is_wrong_with_a_resource_is_said_on_it,
    a_resource_is_kept_until_its_protection_has_ended,
    an_agent_that_was_away_goes_on,
    a_copy_that_is_changed_or_deleted_comes_back,
    an_application_is_carried_to_a_standby_and_follows,
    what_was_carried_is_on_disk_until_the_protection_ends,
    replicas_that_somebody_else_sets_are_brought_back,
    what_argo_cd_keeps_in_a_standby_is_verified_and_not_written,
    the_state_of_each_cluster_is_shown,
    a_namespace_that_is_stuck_in_deletion_on_a_standby_is_named_until_it_is_gone,
    an_operation_of_nothing_is_refused,
    a_switchover_is_followed_to_its_end,
    a_switchover_that_waits_is_called_off_and_what_contradicts_it_is_refused,
    a_switchover_whose_target_is_lost_fails_and_its_source_goes_on,
    an_automatic_failover_leaves_a_record,
    a_paused_application_waits_for_a_person,
    nothing_fails_over_to_a_cluster_without_room_until_there_is_some,
    data_follows_bound_claims_with_pods_frozen,
    a_writer_whose_volumes_cannot_be_read_is_not_protected_and_says_so,
    of_two_replicas_one_acts_and_the_other_one_takes_over_without_a_failover,
    an_outage_of_the_api_server_moves_nothing_between_replicas_or_regions,
    what_an_agent_says_of_itself_is_what_is_documented,
    an_agent_is_ready_from_the_first_answer_on_and_while_nobody_answers,
    a_writer_that_came_up_without_its_gate_is_named,
}
