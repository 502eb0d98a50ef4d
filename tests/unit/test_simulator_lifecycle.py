"""Lives follow the documented steps and no others."""

import itertools
from random import Random

import pytest

from relay.simulator.lifecycle import DEFAULT_WEIGHTS, Kind, Life, choose_life, stages

STEPS = {
    (-2, -1), (-1, 0), (0, 1), (0, 5), (5, 1), (1, 2), (2, 3), (2, 4), (3, 4), (2, 6), (6, 7), (6, 8),
}  # fmt: skip
LAST = {
    Life.FINISHED: 4,
    Life.EXPIRED: 5,
    Life.REVIVED: 4,
    Life.FAILED: 6,
    Life.REFUNDED: 7,
    Life.DELETED: 8,
}


@pytest.mark.parametrize("life", Life)
@pytest.mark.parametrize("kind", Kind)
def test_every_life_walks_documented_steps_to_its_end(kind: Kind, life: Life) -> None:
    for seed in range(30):
        lived = stages(kind, life, Random(seed))
        statuses = [stage.status for stage in lived]
        moves = {(a, b) for a, b in itertools.pairwise(statuses) if a != b}
        assert moves <= STEPS
        assert statuses[-1] == LAST[life]
        assert len(set(lived)) == len(lived)
        assert len(statuses) >= 2


def test_only_private_orders_have_a_second_hop_and_status_three() -> None:
    for kind in Kind:
        lived = stages(kind, Life.FINISHED, Random(1))
        assert (3 in {stage.status for stage in lived}) is (kind is Kind.PRIVATE)
        assert any(stage.out_status is not None for stage in lived) is (kind is Kind.PRIVATE)


def test_a_status_may_repeat_with_a_finer_display() -> None:
    exchanging = [stage for stage in stages(Kind.CEX, Life.FINISHED, Random(1)) if stage.status == 2]
    assert [stage.display for stage in exchanging] == ["EXCHANGE_IN_PROGRESS", "SENDING_TO_RECEIVER"]


def test_lives_are_chosen_by_weight() -> None:
    rng = Random(5)
    assert {choose_life(rng, {Life.FAILED: 1}) for _ in range(20)} == {Life.FAILED}
    drawn = [choose_life(rng) for _ in range(2000)]
    assert set(drawn) == set(DEFAULT_WEIGHTS)
    assert drawn.count(Life.FINISHED) > 1200
