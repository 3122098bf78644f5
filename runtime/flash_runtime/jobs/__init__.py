"""Jobs of queue-based endpoints."""
