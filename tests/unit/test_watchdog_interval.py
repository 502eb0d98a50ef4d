"""Whether the service manager wants pings, and how often."""

import pytest

from relay.watchdog import ping_interval


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 10.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 10.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-3"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_PID": "7"}, None),
    ],
)
def test_a_third_of_what_it_waits_for_if_it_means_this_process(environ: dict[str, str], seconds: float | None):
    """sd_watchdog_enabled(3)."""
    assert ping_interval(environ, pid=7) == seconds
