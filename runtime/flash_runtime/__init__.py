"""flash-runtime: a worker runtime for load-balanced Python endpoints.

Importing this package does nothing and imports nothing; `flash_runtime.cli` is where a process starts.
"""

__version__ = "0.2.0"
