"""Profile the steps of bundles on boards, keep what was measured by class of board, and estimate what was not."""
