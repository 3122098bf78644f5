"""Discovery: finds the endpoints that a project's source declares. `discover` is the entry."""
