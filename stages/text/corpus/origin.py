"""Where the records come from and how they are to be taken: the recipe's word, then the card's, then the defaults."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.contract import Context, load_card
from stages.common.plain_text import TextCut
from stages.common.readers import Item
from stages.text.corpus.card import Repairs, TextCard
from stages.text.corpus.config import Config
from stages.text.corpus.gates import Policy
from stages.text.corpus.sources import local_files, records_of_card, records_of_files


@dataclass(frozen=True)
class Origin:
    """Where the records come from and how they are to be taken."""

    name: str
    license: str
    source: str
    prose: str
    policy: Policy
    max_overlap: float
    items: Iterator[Item]


def open_origin(config: Config, context: Context) -> Origin:
    """Resolve the user's files, or else the card, into records and a policy."""
    if config.files:
        card = TextCard.model_construct(sources=[], on=Repairs())
        return Origin(
            name="your own files",
            license=config.license,
            source="files",
            prose="",
            policy=policy_of(config, card),
            max_overlap=max_overlap_of(config, card),
            items=records_of_files(local_files(config.patterns), reader=None, cut=cut_of(config, card)),
        )
    named = load_card(config.card or "")
    card = named.parsed(TextCard)
    source, items = records_of_card(card, cut=cut_of(config, card), context=context)
    return Origin(
        name=named.name,
        license=named.license,
        source=source,
        prose=named.prose,
        policy=policy_of(config, card),
        max_overlap=max_overlap_of(config, card),
        items=items,
    )


def policy_of(config: Config, card: TextCard) -> Policy:
    """The recipe's word goes before the card's, the card's before the default."""
    actions = {kind: getattr(config, f"on_{kind}") or action for kind, action in card.on.model_dump().items()}
    return Policy(
        actions=actions,
        text_column=config.text_column or card.text_column,
        template=None if config.text_column else card.template,
        columns=tuple(card.columns),
        nfc=config.normalization == "NFC",
        min_characters=config.min_characters,
        max_characters=config.max_characters,
    )


def max_overlap_of(config: Config, card: TextCard) -> float:
    """The ceiling of the overlap gate, as a part of the documents of a split."""
    return card.max_overlap if config.max_overlap is None else config.max_overlap


def cut_of(config: Config, card: TextCard) -> TextCut:
    """How text becomes documents."""
    characters = config.document_characters or card.document_characters
    return TextCut(config.documents, min(characters, config.max_characters), config.max_characters)
