"""Decide which worker computes what next: jobs, leases, and the life cycle of each replica."""
