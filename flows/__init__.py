"""Prefect flows, one file each; thin: they read like the process."""
