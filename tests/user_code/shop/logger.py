"""Named like a module that a runtime might have of its own."""

WHO = "the user's own"
