"""A short form of `make fuzz`, the same each time, so that what must hold is asked on every change."""

import pytest
from fuzz.surfaces import SURFACES, Surface
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.fuzz import run

NUMBERS = st.integers()
EXAMPLES = {"frames": 150, "rest": 60, "receivers": 150, "configuration": 25, "arguments": 25}


@pytest.mark.parametrize("surface", SURFACES.values(), ids=lambda one: one.name)
def test_whatever_comes_is_understood_or_refused_in_plain_words(surface: Surface) -> None:
    @settings(
        max_examples=EXAMPLES[surface.name],
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(surface.inputs)
    def holds(given: object) -> None:
        surface.check(given)

    holds()


def test_what_does_not_hold_is_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    def check(number: int) -> None:
        assert number < 1_000

    assert run(Surface("numbers", NUMBERS, check), 5.0, 1)
    assert "a finding" in capsys.readouterr().out


def test_a_surface_is_tried_however_little_time_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    tried: list[int] = []
    assert not run(Surface("numbers", NUMBERS, tried.append), 0.0, 1)
    assert len(tried) == 1
    assert " 1 executions" in capsys.readouterr().out
