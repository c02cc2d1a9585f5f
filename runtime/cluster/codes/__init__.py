"""Use a bundle's codes in a cluster: decode lost and late shards, find wrong ones, tell which boards may be lost."""
