"""Define the cluster's messages: topics, JSON messages, and frames that carry tensors."""
