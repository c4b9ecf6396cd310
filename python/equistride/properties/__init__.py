"""Properties of crystals from any ASE calculator: relaxed structures, equations of state, elasticity, phonons, heat."""
