"""From the build artifact to a directory, a manifest, and what of it is served."""
