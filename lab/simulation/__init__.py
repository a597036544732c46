"""Simulated networks and disks, in virtual time, from a seed."""
