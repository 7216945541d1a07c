"""The charts of `stages/common/plots.py`: valid SVG, the same bytes for the same numbers, hard values and names drawn."""

import itertools
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from stages.common import plots

CURVES = {"training": ([1, 2, 3, 4], [4.0, 3.0, 2.5, 2.2]), "validation": ([1, 4], [4.1, 2.4])}


def texts(path: Path) -> set[str]:
    """Matplotlib writes each text as a comment beside its paths."""
    parser = ET.XMLParser(target=ET.TreeBuilder(insert_comments=True))
    root = ET.parse(path, parser).getroot()
    return {(node.text or "").strip() for node in root.iter() if node.tag is ET.Comment}


def test_a_line_chart_names_its_curves_its_yardsticks_and_its_units(tmp_path):
    path = tmp_path / "figures" / "loss.svg"
    options = {"xlabel": "step", "ylabel": "loss (nat/token)", "title": "Loss", "hlines": {"xz -9": 2.14}}
    assert plots.line_chart(path, CURVES, **options) == "figures/loss.svg"
    assert {"training", "validation", "xz -9", "step", "loss (nat/token)", "Loss"} <= texts(path)


def test_a_bar_chart_names_its_bars_and_writes_their_values(tmp_path):
    path = tmp_path / "figures" / "bars.svg"
    plots.bar_chart(path, ["before", "after"], [2.345678, 1.7], ylabel="bit/byte", intervals=[(2.2, 2.4), (1.6, 1.8)])
    assert {"before", "after", "2.346", "1.7", "bit/byte"} <= texts(path)


def test_a_histogram_marks_the_median(tmp_path):
    path = tmp_path / "figures" / "lengths.svg"
    plots.histogram(path, [1, 10, 100, 1000, 10_000], xlabel="document length (character)", log_x=True)
    assert {"median 100", "document length (character)", "documents"} <= texts(path)


def test_the_same_numbers_give_the_same_bytes_whatever_was_drawn_or_set_before(tmp_path):
    first = tmp_path / "a.svg"
    again = tmp_path / "b.svg"
    plots.line_chart(first, CURVES, xlabel="step", ylabel="loss")
    plots.bar_chart(tmp_path / "other.svg", ["x"], [1.0], ylabel="y")
    with matplotlib.rc_context({"font.size": 30, "svg.hashsalt": None}):
        plots.line_chart(again, CURVES, xlabel="step", ylabel="loss")
    assert first.read_bytes() == again.read_bytes()
    assert b"dc:date" not in first.read_bytes()


def test_a_chart_leaves_the_settings_of_matplotlib_alone(tmp_path):
    with matplotlib.rc_context({"font.size": 17}):
        plots.histogram(tmp_path / "a.svg", [1, 2], xlabel="x")
        assert matplotlib.rcParams["font.size"] == 17


@pytest.mark.slow
@pytest.mark.parametrize("values", [[], [5.0], [5.0, 5.0], [math.nan, math.inf, 1.0, 2.0], [-1.0, 0.0, 1.0]])
@pytest.mark.parametrize("log_x", [False, True])
def test_a_histogram_of_hard_values_is_drawn_without_a_warning(tmp_path, values, log_x):
    plots.histogram(tmp_path / "a.svg", np.array(values), xlabel="x", log_x=log_x)
    ET.parse(tmp_path / "a.svg")


@pytest.mark.slow
@pytest.mark.parametrize("ys", [[], [1.0], [0.0, 0.0], [math.nan, math.nan], [1.0, math.inf], [-1.0, 2.0], [0.1, 1e9]])
@pytest.mark.parametrize("log", [False, True])
def test_a_curve_of_hard_values_is_drawn_without_a_warning(tmp_path, ys, log):
    xs = list(range(len(ys)))
    plots.line_chart(tmp_path / "a.svg", {"a": (xs, ys), "b": (xs, ys)}, xlabel="x", ylabel="y", log_x=log, log_y=log)
    ET.parse(tmp_path / "a.svg")


def test_names_out_of_data_are_text_and_not_formulas_nor_markup(tmp_path):
    path = tmp_path / "a.svg"
    plots.bar_chart(path, ["$x$ & <b>", "中", "a\nb", "w" * 300], [1, 2, 3, 4], ylabel="documents")
    assert {"U+4E2D", "aU+000Ab", "w" * 31 + "…"} <= texts(path)
    assert "<b>" not in {node.tag for node in ET.parse(path).iter()}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234567, "1,234,567"), (0.00012345, "0.0001234"), (2.0, "2"), (-3.14159, "−3.142"), (1e-7, "1e−7"), (100, "100")],
)
def test_numbers_are_written_for_people(value, text):
    assert plots.readable(value) == text


def test_names_at_the_edge_keep_their_distance_and_their_order():
    places = plots._spread([5.0, 5.0, 5.1, 90.0, 99.9, 100.0], 10, 0, 100)
    in_order = [places[index] for index in sorted(places)]
    assert all(after - before >= 10 - 1e-9 for before, after in itertools.pairwise(in_order))
    assert min(in_order) >= 0
    assert max(in_order) <= 100


def test_a_curve_with_unequal_lengths_and_a_figure_that_is_no_svg_are_refused(tmp_path):
    with pytest.raises(ValueError, match="as many xs as ys"):
        plots.line_chart(tmp_path / "a.svg", {"a": ([1, 2], [1])}, xlabel="x", ylabel="y")
    with pytest.raises(ValueError, match=r"must end in \.svg"):
        plots.histogram(tmp_path / "a.png", [1], xlabel="x")
