"""Wallets in files: deterministic ones, in the Go wallet's format."""
