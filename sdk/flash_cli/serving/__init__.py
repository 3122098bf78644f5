"""`flash run`: a project served from its source, and served anew when a file is saved."""
