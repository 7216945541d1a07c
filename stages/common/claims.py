"""Sentences that are put to a test: a statistic, a rule, and what came out.

A rule that asks for several things at once says "holds" only if every one of them is clear: a 95 % interval lies on the wanted
side. It says "does not hold" if one of m is clearly otherwise, and as any of them may be so by chance, that asks for an interval
of 1 - 0.05 / m (Bonferroni), so that a claim is refuted wrongly in 5 of 100 cases at most. The claims are not corrected for
their number: each is a question of its own, named before the numbers were there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from stages.common.verdicts import LEVEL, Difference, Estimate, t_quantile

Outcome = Literal["holds", "does not hold", "not separable", "cannot be tested here"]
Side = Literal["above", "below", "either"]
RULE_OF_OUTCOMES = (
    "Outcomes follow from the rule alone. A claim of several parts holds only if all are clear: where chance plays a part, a "
    "95 % interval lies on one side. It does not hold if one of m parts is clearly otherwise, by an interval of 100 − 5/m %, as "
    "any of them may be so by chance. Not corrected for the number of claims."
)
"""For the caption of a table of claims."""


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
    """One comparison inside a claim.

    Attributes:
        words: its figures.
        side: of the bound, on which it clearly lies.
        found: what stands on chance, and is held against `bound`; None where nothing does.
    """

    words: str
    side: Side
    found: Estimate | None = None
    bound: float = 0.0

    @classmethod
    def of(cls, words: str, found: Estimate | None, bound: float) -> Self:
        """Return the finding that an estimate gives."""
        return cls(words, side_of(found, bound), found, bound)

    def mirrored(self) -> Finding:
        """Return the finding with below and above exchanged: of minus the number."""
        sides: dict[Side, Side] = {"above": "below", "below": "above", "either": "either"}
        found = self.found and replace(self.found, mean=-self.found.mean, low=-self.found.high, high=-self.found.low)
        return Finding(self.words, sides[self.side], found, -self.bound)

    def side_among(self, num: int) -> Side:
        """Return the side as one of `num` findings each of which could refute a claim."""
        return self.side if self.found is None else side_of(_widened(self.found, num), self.bound)


def side_of(found: Estimate | None, bound: float) -> Side:
    """Return on which side of `bound` the whole interval lies."""
    if found is None or math.isnan(found.low):
        return "either"
    return "above" if found.low > bound else "below" if found.high < bound else "either"


def judged(findings: Sequence[Finding], wanted: Literal["above", "below"]) -> Outcome:
    """Return "holds" if every finding lies on the wanted side, "does not hold" if one of them all lies on the other."""
    if all(finding.side == wanted for finding in findings):
        return "holds"
    sides = [finding.side_among(len(findings)) for finding in findings]
    return "not separable" if all(side in (wanted, "either") for side in sides) else "does not hold"


def _widened(found: Estimate, num: int) -> Estimate:
    """Return the estimate with an interval of 1 - 0.05 / num.

    A difference's own p value decides where it has one. Other intervals grow as those of Student's t do, with the degrees of
    freedom of the seeds; over samples or images, of which there are many, as those of the normal distribution.
    """
    if num < 2 or math.isnan(found.low):
        return found
    if isinstance(found, Difference):
        return found if found.p_value * num < 1 - LEVEL else replace(found, low=-math.inf, high=math.inf)
    degrees = found.num_seeds - 1 if found.method == "seeds" else math.inf
    factor = t_quantile(degrees, 1 - (1 - LEVEL) / num) / t_quantile(degrees)
    low, high = found.mean - factor * (found.mean - found.low), found.mean + factor * (found.high - found.mean)
    return replace(found, low=low, high=high)


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
