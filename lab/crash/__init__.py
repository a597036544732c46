"""The crash harness: proves of a store that no power cut, at no point, loses what it acknowledged."""
