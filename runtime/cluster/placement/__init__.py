"""Decide which workers hold which steps, and forecast what a placement does."""
