"""Read inputs (photographs, tensors) and write results."""
