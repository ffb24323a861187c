"""The Prefect tasks the flows are made of."""
