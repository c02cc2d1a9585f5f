"""Analyses, rewrites and planners: pure functions over a model's structure; nothing here touches a file."""
