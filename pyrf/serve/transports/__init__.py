"""How frames reach a viewer, and how a viewer is heard."""
