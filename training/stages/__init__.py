"""The stages that training from nothing and from Wan share: ODE regression, DMD and Re-DMD."""
