"""Apps that run on a node; each is a dropin behind the seam in meshnet/node/app.py."""
