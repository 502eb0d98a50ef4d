"""Where `simulate` and `listen` are, and whom `simulate` lets in, when nobody says otherwise."""

from typing import Final

UPSTREAM_PORT: Final = 8788
RECEIVER_PORT: Final = 8789
PARTNER: Final = "demo-partner"
UPSTREAM_SECRET: Final = "demo-secret"  # noqa: S105 - of the simulator, which anyone may use
