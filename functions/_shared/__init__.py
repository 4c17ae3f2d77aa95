"""What several functions need; bundled into each function's source when it is registered."""
