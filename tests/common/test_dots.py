"""The charts of `stages/common/dots.py` and `charts.py`: names and ticks where they belong, hard values, the same bytes."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

from stages.common.charts import Point, scatter_chart
from stages.common.dots import Dot, Series, fitted_chart, joined_chart, rows_chart

POINTS = Series(number=0, xs=[2, 8, 32], means=[0.5, 0.1, 0.02], intervals=[(0.4, 0.6), (0.05, 0.2), (0.0, 0.06)])
OTHER = Series(number=1, xs=[2, 8, 32], means=[0.4, 0.2, 0.0], intervals=[(0.3, 0.5), (0.1, 0.3), (0.0, 0.05)])
ROWS = {
    "blurred": {"vae": Dot(number=0, mean=0.3, interval=(0.2, 0.5)), "cnn": Dot(number=1, mean=0.1, interval=(0.1, 0.1))},
    "shifted": {"cnn": Dot(number=1, mean=1.0, interval=(0.99999, 0.99999))},  # an interval that misses by a rounding
}


def places(path: Path) -> dict[str, tuple[float, float]]:
    """Each text of a chart, which matplotlib writes as a comment, and the point where it begins."""
    found = {}
    for text, place in re.findall(r"<!-- (.*?) -->\s*<g [^>]*transform=\"translate\(([-\d. ]+)\)", path.read_text()):
        x, y = place.split()
        found[text] = (float(x), float(y))
    return found


def test_rows_stand_in_their_order_under_a_legend_of_the_models(tmp_path):
    path = tmp_path / "figures" / "rows.svg"
    assert rows_chart(path, ROWS, xlabel="share of wrong answers", vlines=(0.5,)) == "figures/rows.svg"
    found = places(path)
    assert found["vae"][1] < found["blurred"][1] < found["shifted"][1] < found["share of wrong answers"][1]
    assert found["vae"][1] == found["cnn"][1]


def test_the_ticks_of_a_fitted_chart_are_the_numbers_that_were_tried_and_names_stand_beside_the_last_points(tmp_path):
    path = tmp_path / "figures" / "fits.svg"
    line = ([2.0, 32.0], [0.5, 0.02])
    curves = {"vae": POINTS, "cnn": Series(number=1, xs=[2, 8, 32], means=[0.4, 0.2, 0.1], intervals=OTHER.intervals, line=line)}
    fitted_chart(path, curves, xlabel="n", ylabel="error")
    found = places(path)
    assert {"2", "8", "32"} <= set(found)
    assert found["2"][0] < found["8"][0] < found["32"][0] < found["vae"][0]
    assert found["cnn"][1] < found["vae"][1]  # the larger error stands higher


def test_names_beside_a_fitted_chart_stand_in_the_order_of_the_last_errors(tmp_path):
    last = {"a": 0.0975, "b": 0.0525, "c": 0.0225, "d": 0.0725, "e": 0.045, "f": 0.065, "g": 0.025}
    curves = {
        name: Series(number=number, xs=[2, 100], means=[0.3, error], intervals=[(0.2, 0.4), (error / 2, error)])
        for number, (name, error) in enumerate(last.items())
    }
    fitted_chart(tmp_path / "fits.svg", curves, xlabel="n", ylabel="error")
    heights = places(tmp_path / "fits.svg")
    assert sorted(last, key=lambda name: heights[name][1]) == sorted(last, key=lambda name: -last[name])


def test_a_mean_of_zero_has_no_place_on_a_logarithmic_axis_and_no_name(tmp_path):
    fitted_chart(tmp_path / "some.svg", {"vae": POINTS, "cnn": OTHER}, xlabel="n", ylabel="error")
    assert "vae" in places(tmp_path / "some.svg")
    assert "cnn" not in places(tmp_path / "some.svg")
    none = Series(number=0, xs=[2], means=[0.0], intervals=[(0.0, 0.1)])
    fitted_chart(tmp_path / "none.svg", {"vae": none}, xlabel="n", ylabel="error")
    ET.parse(tmp_path / "none.svg")


def test_a_joined_chart_shows_zero_too(tmp_path):
    joined_chart(tmp_path / "a.svg", {"vae": OTHER, "cnn": POINTS}, xlabel="confidence", ylabel="share")
    assert {"vae", "cnn", "confidence", "share"} <= set(places(tmp_path / "a.svg"))


def test_a_name_does_not_stand_on_the_whisker_of_another_point(tmp_path):
    far = {"x": 10.0, "y_interval": (0.0, 1.0)}
    points = {
        "a long name": Point(number=0, x=9.0, y=0.5),
        "other": Point(number=1, y=0.5, **far),
        "z": Point(number=2, x=1, y=0.1),
    }
    scatter_chart(tmp_path / "a.svg", points, xlabel="x", ylabel="y")
    found = places(tmp_path / "a.svg")
    assert found["a long name"][0] < found["other"][0] - 60  # to the left of its point: on the right stands the whisker


def test_the_same_numbers_give_the_same_bytes(tmp_path):
    for name in ("a.svg", "b.svg"):
        rows_chart(tmp_path / name, ROWS, xlabel="share")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
