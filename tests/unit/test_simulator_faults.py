"""Switches are set by name, all or none, and count down."""

import pytest

from relay.simulator.faults import AllMarker, Faults, RestFault


def test_update_sets_switches_of_every_type() -> None:
    faults = Faults()
    faults.update({"refuse_count": 2, "mute": True, "rest_lag_seconds": 3, "rest_fault": "html", "all_marker": "null"})
    assert (faults.refuse_count, faults.mute, faults.rest_lag_seconds) == (2, True, 3)
    assert (faults.rest_fault, faults.all_marker) == (RestFault.HTML, AllMarker.NULL)


@pytest.mark.parametrize(
    "wrong", [{"typo": 1}, {"mute": 1}, {"refuse_count": True}, {"rest_fault": "gone"}, {"rest_lag_seconds": "x"}]
)
def test_one_wrong_switch_and_none_is_set(wrong: dict[str, object]) -> None:
    faults = Faults()
    with pytest.raises(ValueError, match=r".+"):
        faults.update({"no_pong": True, **wrong})
    assert faults == Faults()


def test_refusals_count_down_and_minus_one_lasts() -> None:
    faults = Faults(refuse_count=2, refuse_status=429)
    assert [faults.take_refusal() for _ in range(3)] == [429, 429, None]
    endless = Faults(refuse_count=-1)
    assert [endless.take_refusal() for _ in range(5)] == [503] * 5


def test_rest_faults_count_down() -> None:
    faults = Faults(rest_fault=RestFault.EMPTY, rest_fault_count=1)
    assert [faults.take_rest_fault() for _ in range(2)] == [RestFault.EMPTY, RestFault.NONE]
