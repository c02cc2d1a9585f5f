"""From a model and a budget to a plan: order, cuts, shards and tiles that keep it and take least time."""
