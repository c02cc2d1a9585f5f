"""Plan a model for a budget: order its operators, split and tile the large ones, cut where it costs least time."""
