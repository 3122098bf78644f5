"""Finds what the source of a project declares: from `source` over `gathering` to `discover`."""
