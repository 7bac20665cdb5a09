"""Several uncertainties as one: fitting, and opening what was fitted."""
