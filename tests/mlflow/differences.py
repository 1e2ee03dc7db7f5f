"""Where ours is meant to differ from MLflow's own server, each with its reason.

Laws of `clients/laws` that are named here must fail against MLflow; everything else must hold.
"""

from __future__ import annotations

NO_FAULTS = (
    "a mistake of the caller's is no fault of the server's: clients repeat faults for minutes"
)
ONE_SPELLING = "names that can't be told apart by eye are one: a twin is how a model gets replaced"
ALIASES = "users ask for aliases wherever a version is shown"
ANY_SOURCE = "a source is an address for whoever loads the model; the server never opens it"
LENIENT = "what older and newer clients send is understood"

#: By the law's name.
LAWS: dict[str, str] = {
    "test_a_name_taken_again_goes_on_numbering": (
        "models:/NAME/1 shall never become another model than it was"
    ),
    "test_an_old_name_keeps_resolving_after_a_rename": (
        "what loads by the old name goes on working until the name is taken again"
    ),
    "test_a_rename_changes_no_version": (
        "a version's time says when the version changed; ten thousand of them need no write"
    ),
    "test_a_name_has_at_most_256_characters": (
        "a longer name does not fit MLflow's own column, but on SQLite"
    ),
    "test_names_that_can_not_be_told_apart_are_one": ONE_SPELLING,
    "test_a_found_version_knows_its_aliases": ALIASES,
    "test_latest_versions_of_a_found_model_know_their_aliases": ALIASES,
    "test_a_model_shows_the_aliases_of_its_latest_versions": ALIASES,
    "test_a_stage_that_archives_nobody_is_a_mistake_and_no_fault": NO_FAULTS,
    "test_nothing_that_is_wrong_with_a_request_is_a_fault": NO_FAULTS,
    "test_pages_neither_skip_nor_repeat_while_others_write": (
        "a page goes on after its last row, not after so many rows"
    ),
    "test_a_filter_may_say_more_than_mlflows": "users ask for stages, aliases and OR",
    "test_a_source_may_lie_on_any_host": ANY_SOURCE,
    "test_a_logged_model_that_nobody_knows_is_kept_as_the_source": ANY_SOURCE,
    "test_the_paths_of_the_first_clients_are_still_there": LENIENT,
    "test_required_fields_may_be_spelled_so_too": LENIENT,
}
