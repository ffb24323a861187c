"""The public contract: what a row means, what can be configured, what a failure is called."""
