"""Everything that touches a handler: its signature, its result, its stream, its exceptions."""
