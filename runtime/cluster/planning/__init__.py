"""Plan which boards run which steps before any board is there: boards and links as data, and planners."""
