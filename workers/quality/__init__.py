"""How far a transcript can be trusted: normalising, scoring, intervals, slices and flags."""
