"""Simulate a placement event by event: queues at the boards, and messages over the links between them."""
