"""Lock servers: the only place that imports redis."""
