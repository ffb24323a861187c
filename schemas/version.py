"""The version of the tables' contract: raised when a column or a code changes its meaning or goes away.

A column that comes along does not raise it: in older files it reads as null, which has to be its meaning there
(``audio.raw``: not published). All versions enter the fingerprint, so a raise has everything processed again.
"""

SCHEMA_VERSION = "1"
