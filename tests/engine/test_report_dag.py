"""The drawn graph: no box lies on another, edges run forward and around boxes, every stage is there once."""

import re
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.report import ReportNode
from pipeline.report.collect import read_stages
from pipeline.report.dag import layout
from pipeline.report.picture import graph

CHAIN = {"a": [], "b": ["a"], "c": ["b"], "d": ["c"]}
DIAMOND = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c", "a"]}
FAN = {"data": []} | {f"run{i}": ["data"] for i in range(15)} | {"compare": [f"run{i}" for i in range(15)]}
APART = {"a": [], "b": [], "c": ["b"]}
GRAPHS = {"chain": CHAIN, "diamond": DIAMOND, "fan": FAN, "apart": APART, "one": {"a": []}, "none": {}}


@st.composite
def graphs(draw):
    count = draw(st.integers(1, 12))
    return {str(i): [str(j) for j in range(i) if draw(st.integers(0, 3)) == 0] for i in range(count)}


def check(needs, downwards):
    sizes = {name: (90.0 + 30 * (index % 3), 40.0 + 25 * (index % 2)) for index, name in enumerate(needs)}
    plan = layout(needs, sizes, downwards=downwards)
    assert plan.boxes.keys() == needs.keys()
    for one, other in combinations(plan.boxes.values(), 2):
        beside = one.x + one.width <= other.x or other.x + other.width <= one.x
        above = one.y + one.height <= other.y or other.y + other.height <= one.y
        assert beside or above
    for box in plan.boxes.values():
        assert box.x >= 0
        assert box.y >= 0
        assert box.x + box.width <= plan.width + 0.1
        assert box.y + box.height <= plan.height + 0.1
    assert len(plan.edges) == sum(len(set(inputs)) for inputs in needs.values())
    for points in plan.edges:
        along = [point[1 if downwards else 0] for point in points]
        assert along == sorted(along)
        for one, other in zip(points[::2], points[1::2], strict=True):  # straight through a layer
            assert not any(meets(box, one, other) for box in plan.boxes.values())
        for start, end in zip(points[1:-1:2], points[2::2], strict=True):  # by some curve between two layers
            back, ahead = ((0, start[1]), (plan.width, end[1])) if downwards else ((start[0], 0), (end[0], plan.height))
            assert not any(meets(box, back, ahead) for box in plan.boxes.values())


def meets(box, one, other):
    """True when the rectangle between two corners reaches into `box`."""
    (x0, x1), (y0, y1) = sorted([one[0], other[0]]), sorted([one[1], other[1]])
    near = 0.01
    return x1 > box.x + near and x0 < box.x + box.width - near and y1 > box.y + near and y0 < box.y + box.height - near


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("downwards", [False, True])
def test_no_box_lies_on_another_and_edges_go_around_boxes(name, downwards):
    check(GRAPHS[name], downwards)


@settings(max_examples=60, deadline=None)
@given(graphs(), st.booleans())
def test_no_box_of_any_graph_lies_on_another(needs, downwards):
    check(needs, downwards)


def test_a_chain_is_straight():
    plan = layout(CHAIN, dict.fromkeys(CHAIN, (100.0, 50.0)))
    assert len({box.y for box in plan.boxes.values()}) == 1


def test_the_branches_of_a_diamond_lie_evenly_about_its_ends():
    needs = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}
    boxes = layout(needs, dict.fromkeys(needs, (100.0, 50.0))).boxes
    assert boxes["a"].y == boxes["d"].y == pytest.approx((boxes["b"].y + boxes["c"].y) / 2)


def test_two_parallel_chains_do_not_cross():
    needs = {"a1": [], "b1": [], "b2": ["b1"], "a2": ["a1"], "b3": ["b2"], "a3": ["a2"]}
    boxes = layout(needs, dict.fromkeys(needs, (100.0, 50.0))).boxes
    assert len({boxes[name].y < boxes[f"b{name[1]}"].y for name in ("a1", "a2", "a3")}) == 1


def drawn(nodes):
    picture = graph(read_stages(nodes))
    return re.findall(r"<title>([^<]*)</title>", picture), picture


def test_every_stage_is_drawn_with_its_status_and_time_and_leads_to_its_section():
    nodes = [ReportNode("a", status="ran", machine={"wall_seconds": 5}), ReportNode("b", needs=["a", "gone"])]
    titles, picture = drawn(nodes)
    assert set(titles) == {"a: ran · 5.00 s", "b: missing"}
    assert 'href="#stage-1-a"' in picture
    assert 'href="#stage-2-b"' in picture


def test_a_status_fits_into_its_box_or_is_shortened():
    _, short = drawn([ReportNode("a", status="adopted", machine={"wall_seconds": 252})])
    assert ">adopted · 4 min 12 s</text>" in short
    assert float(re.search(r'class="box"[^>]* width="([\d.]+)"', short).group(1)) >= 42 + 6 * len("adopted · 4 min 12 s")
    titles, long = drawn([ReportNode("a", status="s" * 100)])
    assert "s" * 100 in titles[0]
    assert "s" * 50 not in long.replace(titles[0], "")


def test_the_cells_of_a_matrix_share_one_box_of_their_stage():
    cells = [f"train@seed={seed}" for seed in range(15)]
    nodes = [ReportNode("data"), *(ReportNode(cell, needs=["data"]) for cell in cells), ReportNode("compare", needs=cells)]
    titles, picture = drawn(nodes)
    assert "train · 15 cells" in picture
    assert len(set(titles)) == 17
    wide = picture.split("</svg>")[0]
    assert wide.count('class="edge"') == 2


def test_cells_that_need_each_other_are_drawn_one_by_one():
    cells = [ReportNode(f"step@n={n}", needs=[f"mid{n}"] if n else []) for n in range(5)]
    middles = [ReportNode(f"mid{n}", needs=[f"step@n={n - 1}"]) for n in range(1, 5)]
    titles, picture = drawn([*cells, *middles])
    assert len(set(titles)) == 9
    assert "cells" not in picture
