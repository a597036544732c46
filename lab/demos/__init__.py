"""What `./mesh demo` shows."""
