"""The development server's child: runs `flash-runtime serve`, and ends if `flash run` is gone."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from flash_runtime import cli

_CHECK_SECONDS = 0.5


def main(parent: int) -> int:
    """Serve until a signal ends this process, or until the process `parent` is gone."""

    def check(number: int, frame: FrameType | None) -> None:
        # Forked workers inherit this handler, but not the timer.
        if os.getppid() != parent:
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.kill(os.getpid(), signal.SIGTERM)

    # A timer works on every system, also if the parent was killed. A thread would be lost in a fork.
    signal.signal(signal.SIGALRM, check)
    signal.setitimer(signal.ITIMER_REAL, _CHECK_SECONDS, _CHECK_SECONDS)
    return cli.main(["serve"])


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
