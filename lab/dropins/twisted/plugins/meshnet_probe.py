"""The lab's own app, for benches."""

from lab.benches.probe import Probe

probe = Probe()
