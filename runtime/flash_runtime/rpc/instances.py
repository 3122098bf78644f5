"""Keeps instances of the application's classes between calls: those used last, up to a limit."""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

KEPT = 100
"""Instances that a worker keeps."""
LONGEST_ID = 256
"""Characters of an id. It is kept as long as its instance."""


def _now() -> str:
    return datetime.now(UTC).isoformat()


@dataclass(slots=True)
class Instance:
    """An instance of a class, and what the protocol says about it."""

    id: str
    class_name: str
    value: Any
    created_at: str = field(default_factory=_now)
    last_used: str = field(default_factory=_now)
    method_calls: int = 0

    @classmethod
    def of(cls, class_name: str, value: Any, instance_id: str | None) -> Instance:
        """A new one, with an id of its own if none is given."""
        return cls(instance_id or f"{class_name}_{uuid.uuid4().hex[:8]}", class_name, value)

    def note_call(self) -> None:
        self.method_calls += 1
        self.last_used = _now()

    @property
    def info(self) -> dict[str, Any]:
        """The protocol's `instance_info`."""
        return {
            "class_name": self.class_name,
            "created_at": self.created_at,
            "method_calls": self.method_calls,
            "last_used": self.last_used,
        }


class Instances:
    """A cache by id, for any thread. If it is full, the instance that was used longest ago is dropped."""

    def __init__(self, limit: int = KEPT) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Instance] = OrderedDict()

    def find(self, instance_id: str, class_name: str) -> Instance | None:
        """The instance of that class, or `None` if there is none, or no longer."""
        with self._lock:
            found = self._kept.get(instance_id)
            if found is None or found.class_name != class_name:
                return None
            self._kept.move_to_end(instance_id)
            return found

    def keep(self, instance: Instance) -> None:
        """Keep it as the one used last. It replaces another one with its id."""
        with self._lock:
            gone = [self._kept.pop(instance.id, None)]
            self._kept[instance.id] = instance
            while len(self._kept) > self._limit:
                gone.append(self._kept.popitem(last=False)[1])
        del gone  # without the lock: their finalizers are user code
