"""What a client asks for between its frames, and which targets its session has: the server's bookkeeping."""

from __future__ import annotations

from collections.abc import Iterable

from duotrack_client.errors import ProtocolError
from duotrack_client.protocol.closing import CloseCode
from duotrack_client.protocol.messages import Config, Init


class Targets:
    """Collects ``init`` and ``config`` for the next frame pair, and checks the numbers of targets in them.

    What was asked for counts before it is done: a client may send ``init`` for a target and then, with frames still
    unanswered, a ``config`` that names it.

    Args:
        existing: numbers of the targets that are tracked; empty before the first frame, which starts target 0.
        limit: targets have numbers below this.
    """

    def __init__(self, existing: Iterable[int], limit: int) -> None:
        self._limit = limit
        self._confirmed = frozenset(existing) or frozenset({0})
        self._inits: dict[int, Init] = {}
        self._config: Config | None = None
        # By target: the frame from which on it exists, or no longer does, until the answer to that frame tells.
        self._changes: dict[int, tuple[int, bool]] = {}

    @property
    def expected(self) -> frozenset[int]:
        """The targets that exist once all is done that was asked for."""
        return frozenset(
            {target for target in self._confirmed if target not in self._changes}
            | {target for target, (_, exists) in self._changes.items() if exists}
        )

    @property
    def starts_any(self) -> bool:
        """Whether an ``init`` waits for the next frame."""
        return bool(self._inits)

    def init(self, init: Init, number: int) -> None:
        """Start a target with frame ``number`` of the connection.

        Raises:
            ProtocolError: its number is not below the limit (1008).
        """
        if init.target >= self._limit:
            raise _against_policy(f"expected a target number below {self._limit}, got {init.target}")
        self._inits[init.target] = init
        self._changes[init.target] = (number, True)
        if self._config is not None and self._config.targets is not None:
            kept = tuple(sorted({*self._config.targets, init.target}))
            self._config = Config(kept, self._config.redetection)

    def configure(self, config: Config, number: int) -> None:
        """Change settings with frame ``number`` of the connection.

        Raises:
            ProtocolError: no target is kept, or one that does not exist (1008).
        """
        former = self._config or Config()
        keep = former.targets
        if config.targets is not None:
            keep = tuple(sorted(set(config.targets)))
            self._require(keep)
            for target in self.expected.difference(keep):
                self._changes[target] = (number, False)
                self._inits.pop(target, None)
        redetection = former.redetection if config.redetection is None else config.redetection
        self._config = Config(keep, redetection)

    def take(self) -> tuple[tuple[Init, ...], Config | None]:
        """What was asked for since the last frame, merged; each target once, and those that start among the kept.

        So it makes no difference whether a receiver starts targets first or forgets others first.
        """
        inits = tuple(self._inits[target] for target in sorted(self._inits))
        config, self._inits, self._config = self._config, {}, None
        return inits, config

    def confirm(self, number: int, existing: Iterable[int]) -> None:
        """Note the targets that frame ``number`` was tracked with."""
        self._confirmed = frozenset(existing)
        self._changes = {target: change for target, change in self._changes.items() if change[0] > number}

    def _require(self, keep: tuple[int, ...]) -> None:
        if not keep:
            raise _against_policy("expected at least one target to keep, got an empty list")
        expected = self.expected
        if unknown := [target for target in keep if target not in expected]:
            raise _against_policy(f"expected targets among {sorted(expected)} to keep, got {unknown[0]}")


def _against_policy(message: str) -> ProtocolError:
    return ProtocolError(message, CloseCode.POLICY)
