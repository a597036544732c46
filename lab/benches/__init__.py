"""What `./mesh bench` measures."""
