"""kill -9 under load: nothing that matters is lost, nothing goes backwards, ids stay what they were.

`make crash` is the long form of this, 200 kills and a table.
"""

from pathlib import Path
from random import Random

import pytest
from kill_rounds import kill_rounds
from stage import Stage


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_ten_kills_at_random_moments_under_load(tmp_path: Path):
    """Failure modes 73 to 75 and 85."""
    async with Stage(tmp_path) as stage:
        record = await kill_rounds(stage, 10, rate=40, longest=1.0, chance=Random(20))
    assert record.faults == []
    assert record.kills == 10
    assert record.to_ready
    assert record.verdict.updates > 50
    assert len(record.waiting) > 20
