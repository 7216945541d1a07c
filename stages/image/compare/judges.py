"""Which extractor's numbers stand in the tables."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import DataError
from stages.common.images.features import Extractor


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
