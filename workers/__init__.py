"""The data plane: shards stream through CPU tasks and pools of actors. Knows nothing of Prefect."""
