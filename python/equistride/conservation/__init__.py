"""Does a potential conserve the energy of a run? Drift and scaling of its error, and probes that name the cause."""

from equistride.conservation.drift import Drift, Exponent, energy_drift, energy_error_exponent, protocol_drift

__all__ = ["Drift", "Exponent", "energy_drift", "energy_error_exponent", "protocol_drift"]
