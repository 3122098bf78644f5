"""A Docker engine, or a swarm of them, as a deployment's target."""
