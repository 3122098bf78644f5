"""Admission: which requests run in a worker, which wait, and which are turned away.

Handlers of one kind share a lane. Plain bookkeeping, on the I/O loop only; nothing here waits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

Start = Callable[[], None]

SMALL_CONCURRENCY = 4
"""Workers that run at most this many requests at once share them out one by one: none must wait behind a busy
worker while another is idle."""
_SMALL_QUEUE = 32
_LARGE_QUEUE = 1000


class Kind(Enum):
    """How a request runs, which decides which requests it shares a lane with."""

    SYNC = "sync"
    """A plain function, in a handler thread."""
    ASYNC = "async"
    """A coroutine, beside others on the application loop."""
    NONE = "none"
    """No handler: the API document, an unknown path."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many requests of a lane run at once, and how many wait."""

    concurrency: int
    queue: int


def limits(kind: Kind, max_concurrency: int | None, max_queue: int | None, *, on_gpu: bool) -> Limits:
    """The limits for a kind of handler, given what is set.

    Plain functions are assumed to need the whole device: one at a time on a GPU, and 40 elsewhere, as in
    FastAPI. Coroutines are assumed to wait for something else.
    """
    default = {Kind.SYNC: 1 if on_gpu else 40, Kind.ASYNC: 1000, Kind.NONE: 1000}[kind]
    concurrency = default if max_concurrency is None or kind is Kind.NONE else max_concurrency
    queue = _SMALL_QUEUE if concurrency <= SMALL_CONCURRENCY else _LARGE_QUEUE
    return Limits(concurrency, queue if max_queue is None else max_queue)


def smallest_concurrency(kinds: frozenset[Kind], max_concurrency: int | None, *, on_gpu: bool) -> int:
    """How many requests of the kind with the least room run at once."""
    own = kinds - {Kind.NONE} or {Kind.NONE}
    return min(limits(kind, max_concurrency, None, on_gpu=on_gpu).concurrency for kind in own)


class Lane:
    """Requests that share a limit. Each is identified by its `start` callback, which is called when it may
    run.

    `changed` is called after each change, with how many more requests run and wait.
    """

    def __init__(self, limits: Limits, changed: Callable[[int, int], None]) -> None:
        self.limits = limits
        self.running = 0
        self._waiting: OrderedDict[Start, None] = OrderedDict()
        self._changed = changed

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    def is_full(self) -> bool:
        """Whether the next request is shed."""
        return self.running >= self.limits.concurrency and len(self._waiting) >= self.limits.queue

    def enter(self, start: Start) -> bool:
        """Start the request, now or when its turn comes. False if there is no room for it."""
        if self.running < self.limits.concurrency:
            self.running += 1
            start()
            self._changed(1, 0)
        elif len(self._waiting) < self.limits.queue:
            self._waiting[start] = None
            self._changed(0, 1)
        else:
            return False
        return True

    def forget(self, start: Start) -> None:
        """Remove a request that waits."""
        del self._waiting[start]
        self._changed(0, -1)

    def leave(self) -> None:
        """A request that ran has ended: the next one's turn comes."""
        if self._waiting:
            start, _ = self._waiting.popitem(last=False)
            start()
            self._changed(0, -1)
        else:
            self.running -= 1
            self._changed(-1, 0)


class Admission:
    """The lanes of a worker. `changed` is called with this object after each change."""

    def __init__(
        self,
        max_concurrency: int | None,
        max_queue: int | None,
        kinds: frozenset[Kind],
        changed: Callable[[Admission], None],
        *,
        on_gpu: bool,
    ) -> None:
        self._changed = changed
        self.running = 0
        """Requests that run, in all lanes."""
        self.waiting = 0
        """Requests that wait, in all lanes."""
        self._lanes = {
            kind: Lane(limits(kind, max_concurrency, max_queue, on_gpu=on_gpu), self._on_change)
            for kind in Kind
        }
        if max_concurrency is not None:
            # The limit is for all requests together.
            self._lanes[Kind.ASYNC] = self._lanes[Kind.SYNC]
        own = [self._lanes[kind] for kind in kinds if kind is not Kind.NONE]
        self.narrowest = min(own, key=lambda lane: lane.limits.concurrency, default=self._lanes[Kind.NONE])
        """The lane that is full first."""

    def lane(self, kind: Kind) -> Lane:
        """The lane for that kind of handler."""
        return self._lanes[kind]

    def _on_change(self, running: int, waiting: int) -> None:
        self.running += running
        self.waiting += waiting
        self._changed(self)
