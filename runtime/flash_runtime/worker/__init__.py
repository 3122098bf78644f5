"""One worker process: its two loops, and how it takes connections."""
