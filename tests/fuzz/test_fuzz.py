"""A short form of `make fuzz`, the same each time, so that what must hold is asked on every change."""

import pytest
from fuzz.surfaces import SURFACES, Surface
from hypothesis import HealthCheck, given, settings

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
