"""Model families behind two small protocols; see :mod:`workers.engines.base`."""
