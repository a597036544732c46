"""The chain on disk: blocks kept for ever, and indexes made of them that answer what people ask."""
