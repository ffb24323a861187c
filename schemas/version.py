"""The version of the tables' contract: raised when a column or a code changes its meaning."""

SCHEMA_VERSION = "1"
