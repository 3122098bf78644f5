"""The development server's child: `flash-runtime serve`, which does not outlive `flash run`."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from flash_runtime import cli

_LOOK_SECONDS = 0.5


def main(parent: int) -> int:
    """Serve by the environment until told to stop, or until the process `parent` is gone."""

    def look(number: int, frame: FrameType | None) -> None:
        # Workers that are forked have a copy of this handler, and no timer.
        if os.getppid() != parent:
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.kill(os.getpid(), signal.SIGTERM)

    # A timer, since it works on every system, also where the parent was killed, and needs no thread, which
    # would be lost in a fork.
    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, _LOOK_SECONDS, _LOOK_SECONDS)
    return cli.main(["serve"])


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
