"""Signals that come before anybody listens."""

import subprocess
import sys

_A_SIGHUP_AT_THE_FIRST_MOMENT_THAT_HOLDS_IT = """
import signal
from relay.shutdown import hold_reloads

block = signal.pthread_sigmask

def block_and_be_hit(*change):
    before = block(*change)
    signal.raise_signal(signal.SIGHUP)
    return before

signal.pthread_sigmask = block_and_be_hit
hold_reloads()
print(signal.SIGHUP in signal.sigpending())
"""


def test_a_reload_wished_for_while_the_process_starts_waits_until_somebody_listens() -> None:
    """In a process of its own: a signal that is not held would end this one."""
    done = subprocess.run(
        [sys.executable, "-c", _A_SIGHUP_AT_THE_FIRST_MOMENT_THAT_HOLDS_IT], capture_output=True, text=True, timeout=20
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
