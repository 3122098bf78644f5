"""A Kubernetes cluster as a deployment's target."""
