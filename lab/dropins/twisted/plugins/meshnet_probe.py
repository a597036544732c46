"""The lab's own apps, for benches and long runs."""

from lab.benches.probe import Probe
from lab.load.app import Load

probe = Probe()
load = Load()
