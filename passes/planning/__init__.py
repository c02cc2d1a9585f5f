"""Plan a model for a budget: order its operators, split and tile the large ones, and cut where that takes the least time."""
