"""Where the connection stands: on the board, and told to whoever listens."""

from relay.board import UpstreamBoard, UpstreamState
from relay.live import Live
from relay.model import iso_utc


def show_state(board: UpstreamBoard, live: Live, state: UpstreamState, now_ms: int) -> None:
    """Say that it stands here now, if it did not before."""
    if board.state is not state:
        board.state, board.since_ms = state, now_ms
        live.publish("upstream", lambda: {"state": state.value, "since": iso_utc(now_ms)})
