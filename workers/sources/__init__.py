"""The input side: what sources name, what archives hold, how they are cut into shards and read."""
