"""The scoreboard, and what is read from it: health, metrics, the timeline of a start."""
