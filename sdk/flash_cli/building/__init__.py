"""`flash build`: makes the manifest, installs the dependencies and packs the artifact."""
