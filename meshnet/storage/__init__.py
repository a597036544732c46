"""The disk seam, atomic files and append-only journals. Floor 0."""
