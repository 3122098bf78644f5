"""One module for each command of `flash-runtime`."""
