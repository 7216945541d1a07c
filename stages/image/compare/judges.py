"""Which extractor's numbers stand in the tables, and whether it may judge."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pipeline.artifact import Artifact
from pipeline.errors import DataError
from stages.common.images.features import EXTRACTORS, Extractor


def main_extractor(extractors: Sequence[Extractor]) -> Extractor:
    """Return the extractor whose numbers stand in the table: the first that knows the classes, else the first trained one.

    Raises:
        DataError: none was trained.
    """
    for kind in ("supervised", "rotation"):
        for extractor in extractors:
            if extractor.kind == kind:
                return extractor
    names = ", ".join(extractor.name for extractor in extractors)
    raise DataError(
        f"needs.extractors holds no trained extractor ({names}); distances need one: make them with the classifier stage"
    )


def check_judge(name: str, extractors: Artifact) -> None:
    """Refuse a self-supervised extractor that learnt nothing; a supervised one is refused where it is made.

    Raises:
        DataError: the interval of its test accuracy reaches down to what guessing gives.
    """
    (facts,) = [one for one in json.loads((extractors / EXTRACTORS).read_bytes()) if one["name"] == name]
    if facts["kind"] != "rotation":
        return
    guessing, wanted = 1 / facts["num_outputs"], (f"{name.replace('-', '_')}_accuracy", "test")
    for row in extractors.record.metrics:
        if (row["name"], row.get("split")) == wanted and not row["interval"][0] > guessing:
            raise DataError(
                f"extractor {name} tells how far an image is turned in {row['value']:.1%} of {row['n']} test images, which is no "
                f"better than guessing ({guessing:.1%}), and would judge all models, as the images have no classes: train it "
                "longer (num_steps of the classifier stage), or give images that differ from themselves turned"
            )
