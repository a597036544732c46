"""Load on real nodes: seeded streams, a long run with falls (soak), a flood."""
