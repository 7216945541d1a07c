"""Sentences that are put to a test: a statistic, a rule, and what came out.

A rule that asks for several things at once says "holds" only if every one of them is clear, and "does not hold" if one of
them is clearly otherwise. Clear means that a 95 % interval lies on one side. The claims are not corrected for their number:
each is a question of its own, named before the numbers were there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stages.common.verdicts import Estimate

Outcome = Literal["holds", "does not hold", "not separable", "cannot be tested here"]
Side = Literal["above", "below", "either"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One sentence and its test.

    Attributes:
        sentence: what the course says.
        statistic: what was measured.
        rule: when it counts as true.
        evidence: the figures with their intervals, or why it cannot be tested here.
        outcome: by the rule.
    """

    sentence: str
    statistic: str
    rule: str
    evidence: str
    outcome: Outcome


@dataclass(frozen=True)
class Finding:
    """One comparison inside a claim: the words of its figures, and on which side of the bound it clearly lies."""

    words: str
    side: Side


def side_of(found: Estimate | None, bound: float) -> Side:
    """Return on which side of `bound` the whole interval lies."""
    if found is None or math.isnan(found.low):
        return "either"
    return "above" if found.low > bound else "below" if found.high < bound else "either"


def judged(findings: Sequence[Finding], wanted: Literal["above", "below"]) -> Outcome:
    """Return "holds" if every finding lies on the wanted side, "does not hold" if one lies on the other."""
    sides = [finding.side for finding in findings]
    if all(side == wanted for side in sides):
        return "holds"
    return "not separable" if all(side in (wanted, "either") for side in sides) else "does not hold"


def conclude(
    sentence: str, statistic: str, rule: str, findings: Sequence[Finding], wanted: Literal["above", "below"], *, missing: str
) -> Claim:
    """Return the claim that `findings` decide; without findings it cannot be tested because of `missing`."""
    if not findings:
        return untestable(sentence, statistic, rule, missing)
    evidence = "; ".join(finding.words for finding in findings)
    return Claim(sentence=sentence, statistic=statistic, rule=rule, evidence=evidence, outcome=judged(findings, wanted))


def untestable(sentence: str, statistic: str, rule: str, missing: str) -> Claim:
    """Return a claim that the models at hand cannot decide."""
    return Claim(
        sentence=sentence, statistic=statistic, rule=rule, evidence=f"because {missing}", outcome="cannot be tested here"
    )
