"""What stands in the charts of the comparison: digits that mean something, and names that cover no whisker."""

from __future__ import annotations

import math

import pytest
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from stages.common import charts
from stages.common.charts import Point, interval_chart, scatter_chart
from stages.common.verdicts import Estimate


def estimated(mean, reach, method="seeds"):
    return Estimate(mean=mean, low=mean - reach, high=mean + reach, num_seeds=3, method=method)


def test_a_bar_says_no_more_digits_than_its_interval_has(tmp_path, monkeypatch):
    words, annotate = [], Axes.annotate
    monkeypatch.setattr(Axes, "annotate", lambda axes, text, *args, **kw: words.append(text) or annotate(axes, text, *args, **kw))
    unknown = Estimate(mean=0.5, low=math.nan, high=math.nan, num_seeds=1, method="none")
    found = {"vae": estimated(0.01749, 0.0432), "fm": estimated(0.04131, 0.00502), "one": unknown}
    assert interval_chart(tmp_path / "figures/a.svg", found, xlabel="distance") == "figures/a.svg"
    assert [text.replace("\u00a0", " ") for text in words] == ["0.017 ± 0.043", "0.0413 ± 0.0050", "0.5"]
    again = (tmp_path / "figures/a.svg").read_bytes()
    interval_chart(tmp_path / "figures/a.svg", found, xlabel="distance")
    assert (tmp_path / "figures/a.svg").read_bytes() == again


@pytest.mark.parametrize("whisker", ["x_interval", "y_interval"])
def test_names_keep_clear_of_whiskers(tmp_path, monkeypatch, whisker):
    boxes, lines = {}, []
    placed, errorbar = charts._placed, Axes.errorbar

    def note(label, *place):
        boxes[label.get_text()] = placed(label, *place)
        return boxes[label.get_text()]

    def watch(axes, *args, **kw):
        found = errorbar(axes, *args, **kw)
        lines.extend(found[2])
        return found

    monkeypatch.setattr(charts, "_placed", note)
    monkeypatch.setattr(Axes, "errorbar", watch)
    points = {
        name: Point(number=number, x=number + 1.0, y=number + 1.0, **{whisker: (0.1, 9.0)})
        for number, name in enumerate(("vae", "flow, autoregressive", "diffusion"))
    }
    scatter_chart(tmp_path / "figures/b.svg", points, xlabel="x", ylabel="y")
    for line in lines:
        for start, stop in line.get_segments():
            ends = line.axes.transData.transform([start, stop])
            whole = Bbox.from_extents(*(ends.min(axis=0) - 0.5), *(ends.max(axis=0) + 0.5))
            assert [name for name, box in boxes.items() if Bbox.intersection(whole, box)] == []
