"""The card (`README.md`): metadata for the Hub, then text for people; all of it out of records and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import CardData, DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData

from pipeline.errors import StageError
from stages.common.release.foreign import ForeignBase
from stages.release.publish import card_text
from stages.release.publish.image_usage import Usage
from stages.release.publish.licence import Licence, metadata
from stages.release.publish.lineage import Lineage
from stages.release.publish.model_index import Measurement, eval_results
from stages.release.publish.parts import Selection
from stages.release.publish.probe_images import ProbeImages
from stages.release.publish.probe_rows import ProbeRows
from stages.release.publish.sources import Data

TAG = "groundup"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that a card is made of.

    Attributes:
        repo: `owner/name` on the Hub.
        base_repo: the base under an adapter, or of a merged model, on the Hub; None where there is none there.
        base_revision: its commit, when pinned.
        bases: from elsewhere, that it or an ancestor was fine-tuned from.
        probe: what `probe.json` is measured on; None where there is none.
        figures: paths under figures/ -> caption.
    """

    lineage: Lineage
    selection: Selection
    usage: Usage
    licence: Licence
    data: Sequence[Data]
    bases: Sequence[ForeignBase]
    probe: ProbeRows | ProbeImages | None
    measured: list[Measurement]
    repo: str
    base_repo: str | None
    base_revision: str | None
    figures: dict[str, str]

    @property
    def is_data(self) -> bool:
        """True where data are published, not a model."""
        return self.selection.kind.part == "data"


def write_card(facts: Facts) -> str:
    """Return the text of the card.

    Raises:
        StageError: huggingface_hub's own classes read something else out of it than was put in.
    """
    data = _dataset_metadata(facts) if facts.is_data else _model_metadata(facts)
    title = f"# {card_text.title(facts)}"
    parts = [title, *card_text.sections(facts)]
    text = f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"
    _check(text, data)
    return text


def _languages(facts: Facts) -> list[str] | None:
    return sorted({language for data in facts.data for language in data.languages}) or None


def _tags(facts: Facts) -> list[str]:
    record = facts.lineage.artifact.record
    family = record.stage.removeprefix("stages.").split(".")
    return [TAG, *family, facts.selection.kind.part] if record.stage.startswith("stages.") else [TAG, facts.selection.kind.part]


def _model_metadata(facts: Facts) -> ModelCardData:
    kind = facts.selection.kind
    values: dict[str, Any] = dict(metadata(facts.licence))
    if results := eval_results(facts.measured, kind.task or "other"):
        values |= {"eval_results": results, "model_name": facts.repo.partition("/")[2]}
    if facts.base_repo:
        relation = "adapter" if kind.part == "adapter" else "finetune"
        values |= {"base_model": facts.base_repo, "base_model_relation": relation}
    return ModelCardData(
        library_name=kind.library,
        pipeline_tag=kind.task,
        language=_languages(facts),
        datasets=sorted({repo for data in facts.data for repo in data.hub}) or None,
        tags=_tags(facts),
        **values,
    )


def _dataset_metadata(facts: Facts) -> DatasetCardData:
    (data,) = facts.data
    splits = [{"split": name, "path": f"data/{name}-*.parquet"} for name in data.sizes]
    front = data.card.front_matter if data.card else {}
    licence: dict[str, Any] = dict(metadata(facts.licence))
    return DatasetCardData(
        language=_languages(facts),
        task_categories=front.get("task_categories") or [str(facts.selection.kind.task)],
        size_categories=[_size_category(sum(data.sizes.values()))],
        pretty_name=data.title,
        tags=_tags(facts),
        configs=[{"config_name": "default", "data_files": splits}],
        **licence,
    )


def _size_category(rows: int) -> str:
    """The Hub's classes go by powers of ten."""
    names = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")
    return next((name for power, name in enumerate(names, 3) if rows < 10**power), "1B<n<10B")


def _check(text: str, data: ModelCardData | DatasetCardData) -> None:
    parsed = (ModelCard if isinstance(data, ModelCardData) else DatasetCard)(text).data
    before, after = _comparable(data), _comparable(parsed)
    if wrong := sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key)):
        raise StageError(f"the card's metadata are read back differently by huggingface_hub: {', '.join(wrong)}")


def _comparable(data: CardData) -> dict[str, Any]:
    """The index groups results by data set, so their order may change."""
    values = {key: value for key, value in vars(data).items() if value is not None}
    results: list[EvalResult] = values.pop("eval_results", [])
    return values | {"eval_results": sorted(map(repr, results))}
