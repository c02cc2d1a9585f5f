"""One inference over several devices: a manager, its workers, and the hub between them (Kaboubi, sections 3.3 and 4.2)."""
