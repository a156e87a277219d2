"""Procedural worlds: endless scenes with captions, and detectors that read them back from pixels."""
