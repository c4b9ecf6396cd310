"""Two models, or one in two engines, on the same frames: how far they are apart, and in what their contracts differ."""
