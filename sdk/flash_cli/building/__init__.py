"""`flash build`: the manifest, the dependencies, the artifact."""
