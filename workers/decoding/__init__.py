"""Decoding of untrusted bytes, in a process of its own: a decoder that crashes or hangs costs one member alone."""
