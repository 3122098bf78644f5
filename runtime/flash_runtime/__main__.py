"""`python -m flash_runtime` is the command `flash-runtime`."""

import sys

from flash_runtime.cli import main

sys.exit(main())
