"""A node: config, router, the app seam, metrics, assembly. Floor 3."""
