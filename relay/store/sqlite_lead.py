"""Leading where there is nobody else: the lock on the file is the lease, and it lasts as long as the process."""

from collections.abc import Callable, Mapping, Sequence

from relay.store.sqlite_verbs import Verbs
from relay.store.values import Instance, LiveInstance

_EPOCH = 1


class Alone(Verbs):
    """The verbs about the lead, of which there is but one holder."""

    _instance: Instance | None = None
    _leads: bool = False

    async def lead(self, instance: Instance) -> int | None:
        """Say that this instance lives; it always leads."""
        self._instance, self._leads = instance, True
        return _EPOCH

    async def renew(self) -> bool:
        """Whether it was said to lead; it can lose that only by resigning."""
        return self._leads

    async def resign(self) -> None:
        """Lead no more; there is nobody to tell."""
        self._leads = False

    def on_vacant(self, tell: Callable[[], None]) -> None:
        """Nobody else can give anything back."""

    async def instances(self) -> Sequence[LiveInstance]:
        """This instance, once it has said so."""
        if self._instance is None:
            return []
        epoch = _EPOCH if self._leads else None
        return [LiveInstance(self._instance, self._now_ms(), epoch, self._counts())]

    async def shared_ms(self) -> int | None:
        """None: its own clock will do."""
        return None

    def _counts(self) -> Mapping[str, int]:
        return {name: len(known.claimed) for name, known in self._targets.items() if known.claimed}
