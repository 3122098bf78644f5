"""`flash run`: serves a project from its source, and reloads when a file is saved."""
