"""What all tests share."""

import sys

# Serving is for Linux: these read /proc and use signals as Linux has them.
collect_ignore_glob = [] if sys.platform == "linux" else ["server/*"]
