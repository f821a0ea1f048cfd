"""Pictures: axes hold what is drawn, and lengths are what the figures say."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packhouse.report.svg import LEFT, RIGHT, WIDTH, Group, Ink, Mark, bars, dots, linear_ticks, log_ticks

AMOUNTS = st.floats(min_value=1e-9, max_value=1e9)


@given(AMOUNTS, AMOUNTS)
def test_a_logarithmic_axis_holds_all_values_with_few_ticks(one, other):
    low, high = sorted((one, other))
    ticks = log_ticks(low, high)
    assert ticks[0] <= low * (1 + 1e-9)
    assert high * (1 - 1e-9) <= ticks[-1]
    assert 2 <= len(ticks) <= 20
    assert ticks == sorted(set(ticks))


@given(st.floats(min_value=0, max_value=1e12))
def test_a_linear_axis_begins_at_zero_and_holds_the_largest_value(most):
    ticks = linear_ticks(most)
    assert ticks[0] == 0
    assert ticks[-1] >= most * (1 - 1e-9)
    assert 2 <= len(ticks) <= 7


def test_bars_are_as_long_as_their_values():
    drawn = bars("size", [Group("", (mark("a", 1.0), mark("b", 4.0)))], " MiB")
    one, four = (float(width) for width in re.findall(r'<rect[^>]* width="([\d.]+)"', drawn))
    assert four == pytest.approx(4 * one, abs=0.5)


@given(st.lists(AMOUNTS, min_size=1, max_size=8))
def test_larger_is_further_right_and_inside_the_picture(values):
    drawn = dots("t", [Group("", tuple(mark(str(value), value) for value in values))], "ms")
    places = [float(x) for x in re.findall(r'<circle[^>]* cx="([\d.-]+)"', drawn)]
    assert all(LEFT - 0.1 <= place <= WIDTH - RIGHT + 0.1 for place in places)
    assert [place for _, place in sorted(zip(values, places, strict=True))] == sorted(places)


def test_a_label_is_escaped():
    drawn = bars("<b>", [Group("<i>", (Mark("<u>", 1.0, "<s>", Ink(0)),))], "<em>")
    assert not re.search("<(b|i|u|s|em)>", drawn)


def mark(label: str, at: float) -> Mark:
    return Mark(label, at, "", Ink(0))
