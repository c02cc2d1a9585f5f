"""The manager: it accepts jobs, deploys a bundle on workers, and collects their results."""
