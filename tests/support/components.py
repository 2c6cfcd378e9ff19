"""Which component each test is of, and how many the seed had. A test is of exactly one: tests/house/test_components.py.

A pattern is `folder/file::test` in the form of a shell: `*` stands for any text. A new file needs a pattern here.
"""

from fnmatch import fnmatchcase
from typing import Final, NamedTuple


class Component(NamedTuple):
    """A row of the closing table. `figure` is how many tests the seed had of it, or None where it names none."""

    name: str
    figure: int | None
    patterns: tuple[str, ...]


COMPONENTS: Final = (
    Component(
        "candidate generation",
        115,
        (
            "unit/test_candidates::*",
            "unit/test_candidates_alarms::*",
            "unit/test_alertmanager::*",
            "unit/test_alertmanager_recorded::*",
            "unit/test_intake_forms::*",
            "unit/test_correlation::*",
            "unit/test_rules::*",
            "unit/test_windows::*",
            "unit/test_windows_at_their_limits::*",
            "property/test_parsers::*",
            "contract/test_windows::*",
            "e2e/test_correlation::*",
        ),
    ),
    Component(
        "promotion gate",
        100,
        (
            "unit/test_promotion::*",
            "unit/test_policies::*",
            "unit/test_controls::*",
            "unit/test_controls_store::*",
            "unit/test_held_back::*",
            "unit/test_what_holds_back::*",
            "integration/test_controls_on_the_engine::*",
        ),
    ),
    Component(
        "incident management",
        115,
        (
            "unit/test_incidents::*",
            "unit/test_decisions_candidates::*",
            "unit/test_decisions_commands::*",
            "unit/test_occurrences::*",
            "unit/test_one_open_incident::*",
            "unit/test_folding::*",
            "property/test_order::*",
            "property/test_determinism::*",
        ),
    ),
    Component(
        "incident controller",
        122,
        (
            "unit/test_controller::*",
            "unit/test_commands::*",
            "unit/test_intake::*",
            "unit/test_coalescing::*",
            "unit/test_known_keys::*",
            "unit/test_turns::*",
            "property/test_sequences::*",
            "contract/test_intake_race::*",
            "contract/test_batch_race::*",
            "simulation/test_interleavings::*",
        ),
    ),
    Component("state machine", 115, ("unit/test_transitions::*", "unit/test_transitions_stored::*")),
    Component(
        "schemas",
        50,
        (
            "unit/test_base::*",
            "unit/test_envelope::*",
            "unit/test_openapi::*",
            "unit/test_receipts::*",
            "house/test_schemas::*",
            "house/test_frozen::*",
            "house/test_event_versions::*",
            "unit/test_schema_versions::*",
            "integration/test_two_versions::*",
        ),
    ),
    Component(
        "authority",
        35,
        (
            "unit/test_authority::*",
            "unit/test_authority_identities::*",
            "*/test_audit::*",
            "unit/test_shipped::*",
            "house/test_authority::*",
            "e2e/test_api_identity::test_a_person_*",
            "e2e/test_api_identity::test_an_unsigned_*",
            "e2e/test_api_identity::test_a_signature_*",
            "e2e/test_api_identity::test_a_request_*",
            "e2e/test_api_identity::test_who_has_no_permission_*",
            "e2e/test_api_identity::test_a_principal_outside_*",
            "e2e/test_api_identity::test_a_persons_transition_*",
            "e2e/test_api_identity::test_an_operator_reads_*",
        ),
    ),
    Component(
        "end to end: lifecycle",
        20,
        (
            "e2e/test_lifecycle::*",
            "e2e/test_readme_walk::*",
            "e2e/test_alertmanager::test_a_published_*",
            "e2e/test_pipeline::test_commands_walk_*",
            "e2e/test_pipeline::test_the_recording_shuffled_*",
            "e2e/test_api::test_a_storm_of_evidence_*",
            "e2e/test_api::test_the_client_*",
            "e2e/test_cli_acting::test_an_incident_*",
            "e2e/test_cli_acting::test_what_is_open_*",
            "e2e/test_cli_acting::test_a_dry_run_*",
            "e2e/test_cli_acting::test_many_*",
            "e2e/test_cli_acting::test_every_command_*",
            "e2e/test_cli_acting::test_a_pending_*",
            "e2e/test_cli_acting::test_a_refusal_*",
        ),
    ),
    Component(
        "end to end: idempotency",
        15,
        (
            "e2e/test_idempotency::*",
            "e2e/test_cli_queue::test_what_was_refused_*",
            "e2e/test_cli_queue::test_a_run_that_dies_*",
            "e2e/test_cli_queue::test_what_a_killed_run_*",
            "e2e/test_pipeline::test_the_recording_comes_*",
            "e2e/test_pipeline::test_the_recording_in_halves_*",
            "e2e/test_api::test_fifty_*",
            "e2e/test_api_identity::test_a_key_is_its_principals_own",
            "e2e/test_cli_acting::test_a_reused_key_*",
        ),
    ),
    Component("end to end: replay", 10, ("e2e/test_replay*::*", "e2e/test_pipeline::test_every_row_*")),
    Component(
        "canonical form, ids, hash chain",
        None,
        (
            "unit/test_canonical::*",
            "unit/test_canonical_times::*",
            "unit/test_ids::*",
            "unit/test_replay*::*",
            "property/test_canonical_properties::*",
            "property/test_replay*::*",
            "integration/test_replay*::*",
            "property/test_environment::*",
        ),
    ),
    Component(
        "stores",
        None,
        (
            "unit/test_items::*",
            "unit/test_cancellations::*",
            "unit/test_dynamodb_pages::*",
            "unit/test_clients::*",
            "contract/test_incident_store::*",
            "contract/test_guards::*",
            "contract/test_listing::*",
            "integration/test_dynamodb_faults::*",
            "integration/test_dynamodb_requests::*",
            "integration/test_floors::*",
            "e2e/test_restore::*",
            "integration/test_costs::*",
        ),
    ),
    Component(
        "queues: doors, rejected, redrive",
        None,
        (
            "unit/test_queue*::*",
            "e2e/test_cli_queue::test_dead_*",
            "e2e/test_cli_queue::test_every_queue_*",
            "e2e/test_cli_queue::test_nothing_*",
            "e2e/test_cli_queue::test_what_is_not_*",
            "unit/test_records::*",
            "unit/test_rejection::*",
            "unit/test_redriven::*",
            "unit/test_bad_input::*",
            "unit/test_loop::*",
            "unit/test_settings::*",
            "unit/test_bootstrap::*",
            "unit/test_errors::*",
            "integration/test_built_functions::*",
            "e2e/test_bad_input::*",
            "e2e/test_alertmanager::test_what_is_no_notification_*",
        ),
    ),
    Component(
        "HTTP API",
        None,
        (
            "unit/test_api_*::*",
            "property/test_http_api::*",
            "e2e/test_api_fuzz::*",
            "e2e/test_api::test_a_listing_*",
            "e2e/test_api::test_what_is_read_*",
        ),
    ),
    Component(
        "fan-out, bus, republishing",
        None,
        (
            "unit/test_fanout::*",
            "unit/test_eventbridge::*",
            "integration/test_queues_and_bus::*",
            "e2e/test_pipeline::test_every_event_*",
            "e2e/test_pipeline::test_a_changed_event_*",
            "e2e/test_rules::*",
            "*/test_republish*::*",
            "unit/test_failure_records::*",
            "unit/test_gaps::*",
        ),
    ),
    Component(
        "crashes, storms, outages",
        None,
        (
            "simulation/test_crash_sweep::*",
            "simulation/test_counting_through_crashes::*",
            "simulation/test_storm::*",
            "simulation/test_load::*",
            "simulation/test_outage::*",
            "integration/test_crash_sweep_on_the_engine::*",
            "integration/test_storm_on_the_engine::*",
        ),
    ),
    Component(
        "command line",
        None,
        (
            "unit/test_cli_*::*",
            "unit/test_send_*::*",
            "unit/test_checkpoint::*",
            "e2e/test_cli::*",
            "e2e/test_cli_why::*",
            "e2e/test_cli_status::*",
        ),
    ),
    Component("clients", None, ("unit/test_client_*::*", "integration/test_client_*::*")),
    Component(
        "metrics, alarms, retention",
        None,
        (
            "unit/test_telemetry*::*",
            "house/test_metrics::*",
            "house/test_runbooks::*",
            "unit/test_health::*",
            "e2e/test_scheduled::*",
            "*/test_retention*::*",
            "e2e/test_alarm_causes::*",
        ),
    ),
    Component(
        "local engine, configuration",
        None,
        ("unit/test_overlay::*", "integration/test_engine_lifecycle::*", "integration/test_configuration::*"),
    ),
    Component(
        "house and template",
        None,
        (
            "house/test_components::*",
            "house/test_two_processes::*",
            "house/test_costs::*",
            "house/test_house_questions::*",
            "house/test_imports::*",
            "house/test_language::*",
            "house/test_pins::*",
            "house/test_readme::*",
            "house/test_sizes::*",
            "house/test_template*::*",
            "house/test_workflows::*",
            "integration/test_sam_transform::*",
        ),
    ),
)

# Parameters that repeat an assertion and make no other of it: under them a test counts once.
REPEATED: Final = frozenset(
    {
        "world",  # the same promise of every store
        "seed",
        "round_number",
        "listing",  # rounds of one race
        "dies_at",  # each call of one run
        "environment",  # hash seeds and time zones
        "base_url",  # hosts
        "stage",
        "width",  # of a terminal
        "width_s",  # of a window
        "size",
        "consumers",
        "others",
        "stride",
        "examined_max",
        "versions",
        "length",
    }
)


def components_of(test: str) -> list[Component]:
    """Return the components whose patterns take a test, named as `folder/file::function`."""
    return [one for one in COMPONENTS if any(fnmatchcase(test, pattern) for pattern in one.patterns)]
