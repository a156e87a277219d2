"""The commands of `pyrf`, a file each; heavy modules are imported inside them, so that help comes at once."""
