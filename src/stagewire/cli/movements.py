"""How moves between stages look: what entered, what left, what runs now."""

from collections.abc import Iterable

from stagewire import pb
from stagewire.cli import wording
from stagewire.cli.views import View


def outcome(effect: pb.StageOutcome) -> str:
    """Say in one line what a change did to one stage."""
    parts = [f"version {wording.words(effect.entered)} entered"] if effect.entered else []
    parts += [f"version {wording.words(effect.left)} left"] if effect.left else []
    holder = f"version {effect.primary_version}" if effect.primary_version else "nothing"
    return f"{'; '.join(parts) or 'as it was'}; runs {holder}"


def _effects(outcomes: Iterable[pb.StageOutcome]) -> list[tuple[str, str]]:
    found = list(outcomes)
    several = len({effect.model for effect in found}) > 1
    return [
        (f"{effect.model} {effect.stage}" if several else effect.stage, outcome(effect))
        for effect in found
    ]


def _displaced(versions: Iterable[pb.ModelVersion]) -> str:
    return wording.words(
        f"version {version.version} (now {wording.words(version.stages) or 'in no stage'})"
        for version in versions
    )


MOVE: View[pb.TransitionStageResponse] = View(
    plural="moves",
    name=lambda answer: str(answer.version.version),
    columns=(),
    title=lambda answer: f"{answer.version.model} version {answer.version.version}",
    details=lambda answer: (
        ("stages", wording.words(answer.version.stages) or "none"),
        *_effects(answer.outcomes),
        ("displaced", _displaced(answer.displaced)),
        ("revision", _written(answer.revision)),
    ),
)

REMOVAL: View[pb.RemoveFromStageResponse] = View(
    plural="removals",
    name=lambda answer: str(answer.version.version),
    columns=(),
    title=lambda answer: f"{answer.version.model} version {answer.version.version}",
    details=lambda answer: (
        ("stages", wording.words(answer.version.stages) or "none"),
        *_effects(answer.outcomes),
        ("revision", _written(answer.revision)),
    ),
)

BATCH: View[pb.BatchTransitionStagesResponse] = View(
    plural="batches",
    name=lambda answer: str(answer.revision),
    columns=(),
    details=lambda answer: (*_effects(answer.outcomes), ("revision", _written(answer.revision))),
)

ROLLBACK: View[pb.RollbackStageResponse] = View(
    plural="rollbacks",
    name=lambda answer: wording.words(version.version for version in answer.restored),
    columns=(),
    details=lambda answer: (
        ("restored", _displaced(answer.restored)),
        ("removed", _displaced(answer.removed)),
        ("left out", wording.words(f"version {n} (deleted)" for n in answer.skipped_deleted)),
        *_effects(answer.outcomes),
        ("holders of", f"revision {answer.restored_revision}"),
        ("revision", _written(answer.revision)),
    ),
)


def _written(revision: int) -> str:
    return str(revision) if revision else "nothing was written"
