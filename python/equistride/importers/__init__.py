"""Checkpoints of other programs made into artifacts: one program a file."""
