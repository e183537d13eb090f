"""Where events go: one sink a file."""
